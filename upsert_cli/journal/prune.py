"""The removal of old tasks with all their files, a segment at a time.

The steps for each segment, in this order: write a note with the tasks to remove; remove them from the segment, all or
none; remove their files; drop the note. After a crash at any step, a task is there with all its files, or it is gone
and the next prune removes the files of the tasks in the note.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from upsert_cli.journal.files import drop_note, locked, read_json, reading_from, remove, write_json, written_at
from upsert_cli.journal.layout import segment_numbers, valid_task_id
from upsert_cli.journal.segments import Record
from upsert_cli.journal.task import Task, TaskStatus

if TYPE_CHECKING:
    from upsert_cli.journal.journal import Journal

FINAL = tuple(status for status in TaskStatus if status.is_final)


@dataclass(frozen=True, slots=True, kw_only=True)
class OldTask:
    """A task that is removed, or would be."""

    id: str
    status: TaskStatus
    updated_at: str


def prune_tasks(
    journal: Journal,
    *,
    statuses: Collection[TaskStatus] = FINAL,
    before: str | None = None,
    keep: int = 0,
    dry_run: bool = False,
) -> list[OldTask]:
    """Remove old tasks that no process runs, with all their files; return the tasks that were removed, or would be.

    Args:
        journal: The journal.
        statuses: The states of the tasks to remove; a task is never removed before it is in a final state.
        before: The moment, in UTC, before which the tasks to remove were last updated.
        keep: The number of the newest tasks of these states to keep.
        dry_run: Whether to remove nothing.
    """
    journal.layout.check_format()
    seen, chosen = 0, []
    for record in journal.table.newest_first():
        try:
            task = Task.from_record(record)
        except ValueError:
            continue  # a record that makes no sense stays
        if task.status in statuses and task.status.is_final:
            seen += 1
            if seen > keep and (before is None or task.updated_at < before):
                chosen.append(OldTask(id=task.id, status=task.status, updated_at=task.updated_at))
    return chosen if dry_run or not journal.folder.exists() else [*_removed(journal, chosen)]


def _removed(journal: Journal, chosen: list[OldTask]) -> Iterator[OldTask]:
    """Remove tasks and yield the removed ones; a task that was updated since it was chosen stays."""
    by_id, layout = {task.id: task for task in chosen}, journal.layout

    def is_wanted(record: Record) -> bool:
        task = by_id.get(record.get("id", ""))
        if task is None or (record["status"], record["updated_at"]) != (task.status, task.updated_at):
            return False
        return not journal.is_running(task.id)

    def note(ids: list[str]) -> None:
        write_json(layout.pruned, {"ids": ids}, durable=True)

    with locked(layout.prune_lock):
        with layout.allocation():
            _finish_interrupted(journal)
        for number in reversed(segment_numbers(layout.folder)):
            with layout.allocation():  # for each segment separately, so that other processes wait only briefly
                gone = journal.table.remove_some(number, is_wanted, before=note)
                for task_id in gone:
                    remove(journal.files(task_id).all)
                if gone:
                    drop_note(layout.pruned)
            yield from (by_id[task_id] for task_id in gone)


def _finish_interrupted(journal: Journal) -> None:
    """Remove the files of tasks that an interrupted prune had already removed."""
    layout = journal.layout
    try:
        with reading_from(layout.pruned):
            moment = written_at(layout.pruned)
    except FileNotFoundError:
        return
    # A note that makes no sense is dropped; at worst some files stay.
    match read_json(layout.pruned):
        case {"ids": list(ids)}:
            noted = {task_id for task_id in ids if isinstance(task_id, str) and valid_task_id(task_id)}
            for task_id in noted - {str(record.get("id")) for record in journal.table.newest_first()}:
                remove(journal.files(task_id).all, until=moment)  # the id may be in use again
    drop_note(layout.pruned)
