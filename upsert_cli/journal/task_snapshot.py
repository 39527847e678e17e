"""A task's record, its checkpoint and its rejects -> the task as it is at this moment."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from upsert_cli.errors import JournalDamaged
from upsert_cli.journal.checkpoint import Checkpoint, read_checkpoint
from upsert_cli.journal.failed_items import FAILED_ITEMS
from upsert_cli.journal.layout import Layout
from upsert_cli.journal.rejects import known_rejects
from upsert_cli.journal.task import Task, TaskStatus


class TaskSnapshot:
    """Looks at the files that go with tasks, without a lock."""

    def __init__(self, layout: Layout, *, find: Callable[[str], Task], warn: Callable[[str], None]) -> None:
        """Touches nothing.

        Args:
            layout: Where the files are.
            find: Returns a task as its record says.
            warn: Told of rejects that cannot be read.
        """
        self._layout = layout
        self._find = find
        self._warn = warn

    def as_of_now(self, task: Task) -> Task:
        """Returns a task with the progress of its last checkpoint, if it is being processed."""
        checkpoint = self._checkpoint(task.id) if task.status is TaskStatus.PROCESSING or task.has_cut_items else None
        if task.status is TaskStatus.PROCESSING:
            if checkpoint is not None:
                return self._at(task, checkpoint)
            # It may be done since: its progress file goes right after its record was changed.
            task = self._find(task.id)
        if task.has_cut_items and task.status.is_final:
            return replace(task, failed_items=self._first_rejects(task, checkpoint) or task.failed_items)
        return task

    def with_progress(self, task: Task) -> Task:
        """Returns a task with the progress of its last checkpoint, if it has one."""
        checkpoint = self._checkpoint(task.id)
        return task if checkpoint is None else self._at(task, checkpoint)

    def rejects(self, task_id: str) -> Iterator[dict[str, Any]]:
        """Yields all rejects of a task that are settled."""
        checkpoint = self._checkpoint(task_id)  # before the record, since it goes only after its task is done
        yield from self._rejects(self._find(task_id), checkpoint)

    def _checkpoint(self, task_id: str) -> Checkpoint | None:
        return read_checkpoint(self._layout.progress(task_id))

    def _at(self, task: Task, checkpoint: Checkpoint) -> Task:
        return replace(
            task,
            rows=checkpoint.rows,
            counts=checkpoint.counts,
            converted=checkpoint.converted,
            failed_items=self._first_rejects(task, checkpoint),
            # One that is older than the record is of an attempt before.
            updated_at=max(task.updated_at, checkpoint.saved_at or task.updated_at),
        )

    def _first_rejects(self, task: Task, checkpoint: Checkpoint | None) -> tuple[dict[str, Any], ...]:
        try:
            return tuple(itertools.islice(self._rejects(task, checkpoint), FAILED_ITEMS))
        except JournalDamaged as error:
            self._warn(str(error))
            return task.failed_items

    def _rejects(self, task: Task, checkpoint: Checkpoint | None) -> Iterator[dict[str, Any]]:
        failed, retry = self._layout.rejects(task.id), self._layout.retry(task.id)
        return known_rejects(failed, retry, checkpoint=checkpoint, count=task.counts.failed)
