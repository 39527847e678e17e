"""Damage to a journal and its repair: segments, the files that go with tasks, and leftovers of killed processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from upsert_cli.errors import TaskNotFound, TaskRunning
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.layout import valid_task_id
from upsert_cli.journal.salvage import SALVAGED, salvage
from upsert_cli.journal.segments import Record
from upsert_cli.journal.spool import spool_leftovers
from upsert_cli.journal.task_damage import Damage, damage_of_task
from upsert_cli.owned_folders import Leftover


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
                    steps += salvage(damage.path, repaired)
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
