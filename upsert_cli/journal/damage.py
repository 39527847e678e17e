"""Damage to a journal and its repair: segments, the files that go with tasks, and leftovers of killed processes.

A damaged segment was moved aside; its whole tasks go back into the journal. Bytes after a checkpoint are never judged:
a kill leaves anything there, and the next attempt cuts it off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from upsert_cli.atomic import move_aside, read_whole, sync
from upsert_cli.errors import JournalDamaged, TaskNotFound, TaskRunning
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

LOOKS = 3  # at a task whose files seem damaged; a task that advances is looked at again
SALVAGED = ".repaired"  # ends the name of a damaged file whose whole tasks are back in the journal
_RECORD = re.compile(r'\{\s*"id"\s*:')  # a record begins with its id, as the journal writes it


def damaged_files(journal: Journal) -> tuple[Damage, ...]:
    """Return the damaged files of a journal, including those that were moved aside."""
    meta = journal.layout.meta
    lost = journal.layout.read_format() is None and meta.exists()
    format_lost = [Damage(path=meta, reason="it does not say the journal's format")] if lost else []
    segments = [Damage(path=path, reason=reason) for path, reason in journal.table.problems()]
    return (*format_lost, *_moved_aside(journal.folder), *segments, *_damaged_task_files(journal))


def repair_journal(journal: Journal) -> list[str]:
    """Repair damage as far as possible without losing an intact task, and return a line for each step.

    A damaged segment is moved aside, and its previous generation restored. Each task that is whole in the damaged file
    is put back, unless the journal has it in that state or a newer one. After a crash, the next repair does the rest.

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
        with journal.layout.allocation():  # so that no process is about to own a new folder
            for leftover in leftovers(journal, damaged_files(journal)):
                leftover.remove()
                steps.append(f"{leftover.path.relative_to(journal.folder)}: removed {leftover}")
    journal.close()
    return steps


def leftovers(journal: Journal, damaged: Sequence[Damage]) -> list[Leftover]:
    """Return the copies of standard input that killed processes left; none if a damaged file may hold their task."""
    return [] if damaged else spool_leftovers(journal.layout.spool, is_kept=journal.table.is_taken)


def _moved_aside(folder: Path) -> Iterator[Damage]:
    """Yield the damaged files that were moved out of the way."""
    for path in sorted(folder.glob("*.damaged-*")):
        settled = path.name.endswith(SALVAGED)
        whole = "; its whole tasks are in the journal" if settled else ""
        yield Damage(path=path, reason=f"it was found damaged and moved aside{whole}", settled=settled)


def _damaged_task_files(journal: Journal) -> Iterator[Damage]:
    """Yield the damaged files of tasks, and read only the files that exist.

    Raises:
        JournalUnreadable: A file is there but cannot be read.
    """
    names = journal.layout.names_of_task_files()
    # In a second journal, whose warnings about damaged segments nobody shows: `damaged_files` lists those.
    with closing(Journal(journal.folder)) as looking:
        for record in looking.table.newest_first():
            with suppress(ValueError):  # a record that makes no sense names no files
                if _has_files(names, record) and (damage := damage_of_task(looking, record)) is not None:
                    yield damage


def _repair_task_files(journal: Journal) -> Iterator[str]:
    """Repair the damaged files of tasks, and yield a line for each, even if it cannot be repaired."""
    for damage in _damaged_task_files(journal):
        step = None
        if damage.is_repairable:
            try:
                with Claim.take(journal, damage.task_id):  # so that nothing changes from here on
                    now = damage_of_task(journal, journal.table.find(damage.task_id))
                    if now is not None and now.is_repairable:
                        step = now.repair()
            except TaskRunning as error:
                step = str(error)
            except TaskNotFound:
                continue  # it was removed with its files
        yield step or f"{damage.path}: {damage.reason}"


def _has_files(names: frozenset[str], record: Record) -> bool:
    """Check cheaply whether a task can have files; most tasks of a long history have none."""
    task_id, counts = record.get("id"), record.get("counts")
    if not isinstance(task_id, str) or not valid_task_id(task_id):
        return False  # so it names no file
    counted = isinstance(counts, dict) and bool(counts.get("failed"))
    return counted or f"{task_id}.jsonl" in names or f"{task_id}.progress" in names


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A damaged file of the journal; for a file of a task, also how to repair it without a loss."""

    path: Path
    reason: str

    settled: bool = False
    """Whether the file was moved aside, and its whole tasks are back in the journal."""

    task_id: str = ""
    """The task that the file belongs to; empty for other files."""

    cut_to: int | None = None
    """The length in bytes to which the file can be cut without a loss."""

    is_useless: bool = False
    """Whether the file can be moved aside without a loss."""

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


def damage_of_task(journal: Journal, record: Record) -> Damage | None:
    """Return the damage to a task's files, if any; judge them again if the task advances at this moment.

    A task that was just removed has no damage.

    Raises:
        ValueError: The record is not that of a task.
    """
    damage: Damage | None = None
    for _ in range(LOOKS):
        task = Task.from_record(record)
        files = journal.files(task.id)
        checkpoint = read_checkpoint(files.progress)
        if (damage := _judge(task, files, checkpoint)) is None:
            break
        before = record
        try:
            record = journal.table.find(task.id)
        except TaskNotFound:
            return None  # its files may be removed at this moment, too
        if record == before and read_checkpoint(files.progress) == checkpoint:
            break
    return damage


def _judge(task: Task, files: TaskFiles, checkpoint: Checkpoint | None) -> Damage | None:
    """Return the damage to a task's files, if any; a done task needs no checkpoint."""
    if task.status is TaskStatus.DONE:
        return _judge_rejects(task, files, None)
    if checkpoint is not None:
        return _judge_rejects(task, files, checkpoint)
    if files.progress.exists():
        reason = f"it is torn; the next attempt, such as `upsert-cli restart {task.id}`, reads all rows again"
        return Damage(task_id=task.id, path=files.progress, reason=reason, is_useless=True)
    return None


def _judge_rejects(task: Task, files: TaskFiles, checkpoint: Checkpoint | None) -> Damage | None:
    """Return the damage to the rejects that are counted: in the rejects file and, in a retry, those that wait."""
    counted, length, retried = task.counts.failed, None, None
    if checkpoint is not None:
        counted, length, retried = checkpoint.counts.failed, checkpoint.rejects_bytes, checkpoint.retried
    if retried is None and counted and not files.rejects.exists() and files.retry.exists():
        retried, length = 0, 0  # a crash came after the file was renamed, before a checkpoint was saved
    try:
        path, (count, size) = files.rejects, rejects_extent(files.rejects, length=length)
        expected = file_size(path) if length is None else length
        if retried is not None and size == expected:
            path, (waiting, size) = files.retry, rejects_extent(files.retry)
            count, expected = count + waiting - retried, file_size(path)
    except JournalDamaged as error:
        return _lost(task, Path(error.path), error.reason)
    if count != counted:
        return _lost(task, path, f"it holds {count} whole reject{'s' * (count != 1)} of {counted}")
    if size == expected:
        return None
    reason = f"after its {count} rejects it ends in {expected - size} bytes that are torn"
    if checkpoint is None:
        return Damage(task_id=task.id, path=path, reason=reason, cut_to=size)
    return _lost(task, path, reason)


def _lost(task: Task, path: Path, reason: str) -> Damage:
    remedy = f"`upsert-cli restart {task.id} --from-start` loads all rows again"
    return Damage(task_id=task.id, path=path, reason=f"{reason}; {remedy}")


def _salvage(path: Path, journal: Journal) -> Iterator[str]:
    """Put the tasks of a damaged file back, rename the file, and yield a line for each file of a segment.

    Only the holder of the allocation lock may call this. A task is left alone if its state in the journal is newer.
    """
    if (number := number_of(path)) is not None:
        with reading_from(path):
            records = list(whole_records(read_whole(path)))
        added, renewed = journal.table.put_back(number, _newest(records))
        found = f"{path.name}: {len(records)} whole {'task' if len(records) == 1 else 'tasks'} found"
        yield f"{found}, {len(added)} put back, {len(renewed)} brought to a newer state"
    with writing_to(path):
        path.rename(path.with_name(path.name + SALVAGED))
        sync(path.parent)


def whole_records(raw: bytes) -> Iterator[Record]:
    """Yield the records of tasks that are whole in the bytes of a damaged segment."""
    text = raw.decode("latin-1")  # one character a byte, so that nothing is lost or made up
    decoder = json.JSONDecoder()
    after = 0
    for match in _RECORD.finditer(text):
        if match.start() < after:
            continue  # inside a record that was yielded
        try:
            record, end = decoder.raw_decode(text, match.start())
            Task.from_record(record)
        except (ValueError, RecursionError):
            continue
        # The journal writes ASCII: any other byte was not there when the record was written.
        if text[match.start() : end].isascii() and _has_id_and_time(record):
            after = end
            yield record


def _has_id_and_time(record: Record) -> bool:
    return isinstance(record["id"], str) and valid_task_id(record["id"]) and isinstance(record["updated_at"], str)


def _newest(records: Sequence[Record]) -> list[Record]:
    """Return the newest record of each task, in the order of the file."""
    newest: dict[str, Record] = {}
    for record in records:
        known = newest.get(record["id"], record)
        newest[record["id"]] = known if known["updated_at"] > record["updated_at"] else record
    return list(newest.values())
