"""Damage to a journal and its repair: segments, and the files that go with tasks.

Bytes after a checkpoint are never judged: a kill leaves anything there, and the next attempt cuts it off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from upsert_cli.atomic import move_aside, read_whole, sync
from upsert_cli.errors import JournalDamaged, TaskRunning
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.files import reading_from, writing_to
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.layout import TaskFiles, number_of, valid_task_id
from upsert_cli.journal.progress import Checkpoint, read_checkpoint
from upsert_cli.journal.rejects import JsonLines, file_size, rejects_extent
from upsert_cli.journal.segments import Record
from upsert_cli.journal.spool import spool_leftovers
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.owned_folders import Leftover

SALVAGED = ".repaired"  # ends the name of a damaged file whose whole tasks are back in the journal

_RECORD = re.compile(r'\{\s*"id"\s*:')  # a record begins with its id, as the journal writes it
LOOKS = 3  # at a task whose files seem damaged; more than one only if the task advances between them


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A damaged file of the journal, and for a file of a task, how it can be repaired without a loss."""

    path: Path
    reason: str

    settled: bool = False
    """Whether it was moved aside, and its whole tasks are back in the journal."""

    task_id: str = ""
    """The task that the file belongs to, if it is of one."""

    cut_to: int | None = None
    """The length in bytes that the file should have, if the rest can be dropped."""

    is_useless: bool = False
    """Whether nothing in the file is of use any more."""

    @property
    def is_repairable(self) -> bool:
        """Whether `repair` can do something."""
        return self.cut_to is not None or self.is_useless

    def repair(self) -> str:
        """Repair the file, and return a line that says how; only the holder of the task's claim may call this."""
        with writing_to(self.path):
            if self.is_useless:
                return f"{self.path} was moved to {move_aside(self.path).name}: {self.reason}"
            length = self.path.stat().st_size
            JsonLines.open_at(self.path, self.cut_to or 0).close()
        return f"{self.path} was cut from {length} to {self.cut_to} bytes: {self.reason}"


def damaged_files(journal: Journal) -> tuple[Damage, ...]:
    """Return the damaged files of a journal, and those that were damaged and are moved aside."""
    meta = journal.layout.meta
    lost = journal.layout.read_format() is None and meta.exists()
    format_lost = [Damage(path=meta, reason="it does not say the journal's format")] if lost else []
    segments = [Damage(path=path, reason=reason) for path, reason in journal.table.problems()]
    return (*format_lost, *_moved_aside(journal.folder), *segments, *_damaged_task_files(journal))


def repair_journal(journal: Journal) -> list[str]:
    """Repair damage as far as possible without losing a good task, and return the steps, a line each.

    A damaged segment is moved aside and its previous generation restored; each task that is whole in the damaged file
    is put back, unless the journal has it in that or a newer state. The next repair completes one that is interrupted.

    Raises:
        UpsertCliError: A newer version wrote the journal; nothing is touched.
    """
    repaired = Journal(journal.folder)
    steps = repaired.warnings
    if journal.folder.exists():
        with closing(repaired), repaired.layout.allocation():
            repaired.table.restore()
            for damage in _moved_aside(journal.folder):
                if not damage.settled:
                    steps += _salvage(damage.path, repaired)
        steps += _repair_task_files(journal)
        with journal.layout.allocation():  # in which nobody makes a folder that is not owned yet
            for leftover in leftovers(journal):
                leftover.remove()
                steps.append(f"{leftover.path.relative_to(journal.folder)}: removed {leftover}")
    journal.close()
    return steps


def leftovers(journal: Journal) -> list[Leftover]:
    """Return the copies of standard input that killed processes left; none while a damaged file may hold its task."""
    return [] if damaged_files(journal) else spool_leftovers(journal.layout.spool, is_kept=journal.table.is_taken)


# -- segments ---------------------------------------------------------------------------------------------------------


def whole_records(raw: bytes) -> Iterator[Record]:
    """Yield the records of tasks that are whole in the bytes of a damaged segment."""
    text = raw.decode("latin-1")  # one character a byte, so that nothing is lost or made up
    decoder = json.JSONDecoder()
    after = 0
    for match in _RECORD.finditer(text):
        if match.start() < after:
            continue  # inside a record that is whole already
        try:
            record, end = decoder.raw_decode(text, match.start())
            Task.from_record(record)
        except (ValueError, RecursionError):
            continue
        # The journal writes ASCII: any other byte was not there when the record was written.
        if text[match.start() : end].isascii() and _has_id_and_time(record):
            after = end
            yield record


def _moved_aside(folder: Path) -> Iterator[Damage]:
    """Yield the damaged files that were moved out of the way."""
    for path in sorted(folder.glob("*.damaged-*")):
        settled = path.name.endswith(SALVAGED)
        whole = "; its whole tasks are in the journal" if settled else ""
        yield Damage(path=path, reason=f"it was found damaged and moved aside{whole}", settled=settled)


def _salvage(path: Path, journal: Journal) -> Iterator[str]:
    if (number := number_of(path)) is not None:
        with reading_from(path):
            records = list(whole_records(read_whole(path)))
        added, renewed = journal.table.put_back(number, _newest(records))
        found = f"{path.name}: {len(records)} whole {'task' if len(records) == 1 else 'tasks'} found"
        yield f"{found}, {len(added)} put back, {len(renewed)} brought to a newer state"
    with writing_to(path):
        path.rename(path.with_name(path.name + SALVAGED))
        sync(path.parent)


def _has_id_and_time(record: Record) -> bool:
    return isinstance(record["id"], str) and valid_task_id(record["id"]) and isinstance(record["updated_at"], str)


def _newest(records: Sequence[Record]) -> list[Record]:
    """Return the newest record of each task."""
    by_age = sorted(records, key=lambda record: record["updated_at"])
    return list(({record["id"]: record for record in records} | {record["id"]: record for record in by_age}).values())


# -- files of tasks ---------------------------------------------------------------------------------------------------


def _damaged_task_files(journal: Journal) -> Iterator[Damage]:
    """Yield the damaged files of tasks, and open only files that hold something.

    Raises:
        JournalUnreadable: A file is there but cannot be read.
    """
    names = journal.layout.names_of_task_files()
    # Of its own, since damaged segments are reported by those who look for them.
    with closing(Journal(journal.folder)) as looking:
        for record in looking.table.newest_first():
            # A record that makes no sense says nothing about its files, and is named by those who list it.
            with suppress(ValueError):
                if _has_files(names, record):
                    yield from _confirmed_damage(looking, record)


def _repair_task_files(journal: Journal) -> Iterator[str]:
    """Repair the damaged files of tasks, and yield a line for each, even if it cannot be repaired."""
    for found in _damaged_task_files(journal):
        step = None
        if found.is_repairable:
            try:
                with Claim.take(journal, found.task_id):  # so that nothing changes after this last look
                    again = _confirmed_damage(journal, journal.table.find(found.task_id))
                    step = next((damage.repair() for damage in again if damage.is_repairable), None)
            except TaskRunning as error:
                step = str(error)
        yield step or f"{found.path}: {found.reason}"


def _has_files(names: frozenset[str], record: Record) -> bool:
    """Check cheaply whether there is something to judge; most tasks of a long history have no files."""
    task_id, counts = record.get("id"), record.get("counts")
    if not isinstance(task_id, str) or not valid_task_id(task_id):
        return False  # and so no name of a file
    counted = isinstance(counts, dict) and bool(counts.get("failed"))
    return counted or f"{task_id}.jsonl" in names or f"{task_id}.progress" in names


def _confirmed_damage(journal: Journal, record: Record) -> list[Damage]:
    found: list[Damage] = []
    for _ in range(LOOKS):
        task = Task.from_record(record)
        files = journal.files(task.id)
        checkpoint = read_checkpoint(files.progress)
        if not (found := list(_judge(task, files, checkpoint))):
            break
        before, record = record, journal.table.find(task.id)
        if record == before and read_checkpoint(files.progress) == checkpoint:
            break
    return found


def _judge(task: Task, files: TaskFiles, checkpoint: Checkpoint | None) -> Iterator[Damage]:
    if task.status is TaskStatus.DONE:
        yield from _judge_rejects(task, files, None)
    elif checkpoint is not None:
        yield from _judge_rejects(task, files, checkpoint)
    elif files.progress.exists():
        reason = f"it is torn; the next attempt, such as `upsert-cli restart {task.id}`, reads all rows again"
        yield Damage(task_id=task.id, path=files.progress, reason=reason, is_useless=True)


def _judge_rejects(task: Task, files: TaskFiles, checkpoint: Checkpoint | None) -> Iterator[Damage]:
    counted, length, waits_from = task.counts.failed, None, None
    if checkpoint is not None:
        counted, length, waits_from = checkpoint.counts.failed, checkpoint.rejects_bytes, checkpoint.retried
    if waits_from is None and counted and not files.rejects.exists() and files.retry.exists():
        waits_from, length = 0, 0  # the files were renamed, and then came a crash
    try:
        count, size = rejects_extent(files.rejects, length=length)
        path, expected = files.rejects, file_size(files.rejects) if length is None else length
        if waits_from is not None and size == expected:
            waiting, size = rejects_extent(files.retry)
            count, path, expected = count + waiting - waits_from, files.retry, file_size(files.retry)
    except JournalDamaged as error:
        yield _lost(task, Path(error.path), error.reason)
        return
    if count != counted:
        yield _lost(task, path, f"it holds {count} whole reject{'s' * (count != 1)} of {counted}")
    elif size != expected:
        reason = f"after its {count} rejects it ends in {expected - size} bytes that are torn"
        if checkpoint is None:
            yield Damage(task_id=task.id, path=path, reason=reason, cut_to=size)
        else:
            yield _lost(task, path, reason)


def _lost(task: Task, path: Path, reason: str) -> Damage:
    remedy = f"`upsert-cli restart {task.id} --from-start` loads all rows again"
    return Damage(task_id=task.id, path=path, reason=f"{reason}; {remedy}")
