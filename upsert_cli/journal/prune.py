"""Old tasks -> gone, with all that goes with them, a segment at a time.

For each segment, and in this order: note which tasks go; take them out of it, whole or not at all; remove their files;
drop the note. After a crash anywhere a task is there with all of its files, or it is gone, and then the next prune
removes the files that the note speaks of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from upsert_cli.atomic import read_whole, replace_file, sync
from upsert_cli.journal.layout import Layout
from upsert_cli.journal.receipts import remove_receipts
from upsert_cli.journal.segments import segment_numbers
from upsert_cli.journal.state_files import locked, reading_from, writing_to
from upsert_cli.journal.storage import Record
from upsert_cli.journal.task import Task, TaskStatus, valid_task_id
from upsert_cli.journal.task_table import TaskTable

FINAL = tuple(status for status in TaskStatus if status.is_final)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which tasks are to go: those that are all of this."""

    statuses: tuple[TaskStatus, ...] = FINAL
    """Never one that is not final."""

    before: str | None = None
    """They were touched last before this moment, UTC; None: whenever."""

    keep: int = 0
    """As many of the newest of these states stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OldTask:
    """A task that goes, or would go."""

    id: str
    status: TaskStatus
    updated_at: str


def old_tasks(history: TaskTable, wanted: Wanted) -> Iterator[OldTask]:
    """Yields the tasks that are to go, the newest first, without a lock."""
    seen = 0
    for record in history.newest_first():
        try:
            task = Task.from_record(record)
        except ValueError:
            continue  # what makes no sense is for `journal repair`
        if task.status in wanted.statuses and task.status.is_final:
            seen += 1
            if seen > wanted.keep and (wanted.before is None or task.updated_at < wanted.before):
                yield OldTask(id=task.id, status=task.status, updated_at=task.updated_at)


def prune(
    layout: Layout,
    history: TaskTable,
    chosen: Collection[OldTask],
    *,
    allocation: Callable[[], AbstractContextManager[None]],
    is_running: Callable[[str], bool],
) -> Iterator[OldTask]:
    """Removes tasks and yields those that are gone; one that was touched since it was chosen stays.

    Args:
        layout: Where the files are.
        history: The segments.
        chosen: The tasks.
        allocation: Holds the lock under which tasks are created, so that no id is used again meanwhile.
        is_running: Tells whether a process has the claim of a task.
    """
    by_id = {task.id: task for task in chosen}

    def goes(record: Record) -> bool:
        task = by_id.get(record["id"])
        as_it_was = task is not None and (record["status"], record["updated_at"]) == (task.status, task.updated_at)
        return as_it_was and not is_running(record["id"])

    with locked(layout.prune_lock):
        with allocation():
            _finish_interrupted(layout, history)
        for number in reversed(segment_numbers(layout.folder)):
            with allocation():  # for each segment anew, so that nobody waits for long
                gone = history.remove_some(number, goes, before=lambda ids: _note(layout, ids))
                for task_id in gone:
                    _remove_files(layout, task_id)
                if gone:
                    _drop_note(layout)
            yield from (by_id[task_id] for task_id in gone)


def _note(layout: Layout, ids: list[str]) -> None:
    with writing_to(layout.pruned):
        replace_file(layout.pruned, json.dumps({"ids": ids}).encode("ascii"), durable=True)


def _drop_note(layout: Layout) -> None:
    with writing_to(layout.pruned):
        layout.pruned.unlink()
        sync(layout.folder)


def _finish_interrupted(layout: Layout, history: TaskTable) -> None:
    """Removes the files of tasks that a prune had taken out when it was interrupted."""
    try:
        with reading_from(layout.pruned):
            ids = _noted(read_whole(layout.pruned))
            moment = _written(layout.pruned)
    except FileNotFoundError:
        return
    for task_id in ids - {str(record.get("id")) for record in history.newest_first()}:
        _remove_files(layout, task_id, until=moment)
    _drop_note(layout)


def _noted(content: bytes) -> set[str]:
    with suppress(ValueError):  # what makes no sense is not ours; all that could be lost is that some files stay
        match json.loads(content):
            case {"ids": list(ids)}:
                return {task_id for task_id in ids if isinstance(task_id, str) and valid_task_id(task_id)}
    return set()


def _remove_files(layout: Layout, task_id: str, *, until: float | None = None) -> None:
    """Removes what goes with a task; with `until`, only what is older, since the id may be in use again."""
    for path in layout.files_of(task_id):
        with writing_to(path), suppress(FileNotFoundError):
            if until is None or _written(path) <= until:
                path.unlink()
    receipts, spool = layout.receipts(task_id), layout.spooled(task_id)
    with writing_to(receipts), suppress(FileNotFoundError):
        if until is None or _written(receipts) <= until:
            remove_receipts(receipts)
    with writing_to(spool), suppress(FileNotFoundError):
        if until is None or max(map(_written, spool.iterdir()), default=0.0) <= until:
            import shutil  # late, like all that `list` and `info` do not need

            shutil.rmtree(spool)


def _written(path: Path) -> float:
    return path.lstat().st_mtime
