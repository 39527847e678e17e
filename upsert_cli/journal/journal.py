"""The journal of tasks: find, list, create and change them; no kill of a process damages it.

Lock order, for those who hold more than one: target, task lease, allocation, segment. Reading takes no lock.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from upsert_cli.errors import Canceled, JournalDamaged, TaskExists, WrongStatus
from upsert_cli.journal.files import reading_from, remove
from upsert_cli.journal.layout import Layout, TaskFiles
from upsert_cli.journal.progress import Checkpoint, read_checkpoint
from upsert_cli.journal.rejects import FAILED_ITEMS, known_rejects
from upsert_cli.journal.segments import SEGMENT_TASKS, Record
from upsert_cli.journal.task import SHOWN_STATES, Task, TaskStatus
from upsert_cli.journal.task_table import TaskTable
from upsert_cli.leases import Lease

Tasks: TypeAlias = list[Task]  # inside the class, `list` is the method


class Journal:
    """All tasks of a journal folder; an object serves one thread."""

    def __init__(self, folder: Path) -> None:
        """Read nothing yet; the folder is made when the first task is created."""
        self.folder = folder.absolute()
        self.layout = Layout(self.folder, warn=self._warn)
        self.table = TaskTable(self.folder, warn=self._warn)
        self.warnings: list[str] = []
        """Damage that was found, and how it was handled; a line each, for the caller to show."""

    def close(self) -> None:
        """Close the files that reading keeps open; the journal can be used again."""
        self.table.close()

    def files(self, task_id: str) -> TaskFiles:
        """Return the paths of the files that go with a task."""
        return TaskFiles(self.folder, task_id)

    # -- reading --------------------------------------------------------------------------------------------------

    def find(self, task_id: str) -> Task:
        """Return a task; while it is being processed, with the progress of its last checkpoint.

        Raises:
            TaskNotFound: No task has this id.
            JournalDamaged: The record of the task makes no sense.
        """
        self.layout.check_format()
        return self._current(self._recorded(task_id))

    def resolve(self, name: str) -> str:
        """Return the id that a user means by an id, a prefix that only one id has, or `latest` for the newest task.

        Raises:
            TaskNotFound: No id has this prefix, or a damaged file may hold that very id.
            UsageFault: Several ids have this prefix.
        """
        self.layout.check_format()
        return self.table.resolve(name)

    def with_runner(self, task: Task) -> Task:
        """Return a task that was just found, with `running` set; if it ended in this moment, as it ended."""
        if not task.status.is_final and self.is_running(task.id):
            return replace(task, running=True)
        return self.find(task.id) if task.has_died else task

    def list(
        self, *, offset: int = 0, limit: int = 100, statuses: Collection[str] = (), since: str | None = None
    ) -> Tasks:
        """Return tasks, the newest first, like `find`; read only the segments that this needs.

        `statuses` may include `SHOWN_STATES`; without any, tasks of all states are returned. `since` is a time in UTC.
        """
        self.layout.check_format()
        recorded = {str(SHOWN_STATES.get(status, status)) for status in statuses}
        found = self._readable(self.table.newest_first(*recorded))
        tasks = found if since is None else _created_since(found, since)
        if not recorded <= set(statuses):
            tasks = (
                task for task in tasks if task.status in statuses or self.with_runner(task).shown_state in statuses
            )
        return [self._current(task) for task in itertools.islice(tasks, offset, offset + limit)]

    def newest_first(self) -> Iterator[Task]:
        """Yield tasks like `list`, one by one, so that a long history does not fill the memory."""
        self.layout.check_format()
        yield from map(self._current, self._readable(self.table.newest_first()))

    def waiting(self) -> Iterator[Task]:
        """Yield the queued tasks that no process runs, the oldest first: pending ones, and those whose runner died."""
        self.layout.check_format()
        records = self.table.oldest_first(TaskStatus.PENDING, TaskStatus.PROCESSING)
        return (task for task in self._readable(records) if task.queued and not self.is_running(task.id))

    def is_running(self, task_id: str) -> bool:
        """Check whether a process runs the task at this moment."""
        path = self.files(task_id).lease
        with reading_from(path):
            return Lease.peek(path) is not None

    def rejects(self, task_id: str) -> Iterator[dict[str, Any]]:
        """Yield the committed rejects of a task; during a retry, also those that still wait for it."""
        files = self.files(task_id)
        checkpoint = read_checkpoint(files.progress)  # before the record, since it goes only after its task is done
        yield from known_rejects(files, checkpoint=checkpoint, count=self._recorded(task_id).counts.failed)

    # -- changing -------------------------------------------------------------------------------------------------

    def create(self, task: Task, *, incoming: Path | None = None) -> Task:
        """Put a new task into the journal; it survives a power failure from then on.

        The folder `incoming`, with the copies of streams, becomes the task's spool.

        Raises:
            TaskExists: The id is taken.
        """
        files = self.files(task.id)
        with self.layout.allocation():
            if self.table.is_taken(task.id):
                raise TaskExists(task_id=task.id)
            remove(files.of_attempt)  # of a task that was lost with its segment
            with ExitStack() as stack:
                if incoming is not None:
                    from upsert_cli.journal.spool import moved_to_spool  # late: light commands create no task

                    moved = moved_to_spool(incoming, files.spool, is_created=lambda: self.table.is_taken(task.id))
                    stack.enter_context(moved)
                self.table.append(task.id, task.as_record())
        return task

    def change(
        self,
        task_id: str,
        to: TaskStatus,
        *,
        expect: Collection[TaskStatus],
        heeds_cancel: bool = False,
        **fields: object,
    ) -> Task:
        """Move a task from an expected state into another one, with its last checkpoint, as one operation.

        The given `fields` override those of the checkpoint. With `heeds_cancel`, a canceled task stays as it is, and a
        task whose runner was asked to stop is canceled instead.

        Raises:
            TaskNotFound: No task has this id.
            WrongStatus: The task is in another state.
        """
        self.layout.check_format()
        with self.table.changing(task_id) as (file, record):
            task = self._task(record)
            if task.status not in expect:
                raise WrongStatus(task_id=task_id, status=task.status, wanted=tuple(expect))
            if heeds_cancel and task.status is TaskStatus.CANCELED:
                return task
            if task.status is TaskStatus.PROCESSING:
                checkpoint = read_checkpoint(self.files(task_id).progress)
                task = task if checkpoint is None else self._with_progress(task, checkpoint)
            if heeds_cancel and task.cancel_requested:
                to, fields = TaskStatus.CANCELED, fields | {"detail": str(Canceled(task_id=task_id))}
            task = task.moved(to, **fields)
            file.update(task.as_record())
        return task

    def unfinished_in(self, chroma: str, *, collection: str) -> Tasks:
        """Return the tasks that have loaded rows into a collection and are not done."""
        tasks = [task for task in self.newest_first() if (task.chroma, task.collection) == (chroma, collection)]
        return [task for task in tasks if task.rows and task.status is not TaskStatus.DONE]

    def bring_back(self, task: Task) -> bool:
        """Restore a task's record, which was lost by damage; return False if the id stands for another task by now.

        Only the holder of the task's claim may call this.
        """
        with self.layout.allocation():
            is_back = self.table.bring_back(task.as_record())
        if is_back:
            self._warn(f"damage to the journal had hidden that task {task.id} is running; its runner corrected that")
        return is_back

    # -- inside ---------------------------------------------------------------------------------------------------

    def _current(self, task: Task) -> Task:
        """Return a task with the progress of its last checkpoint if it is being processed, and with whole rejects."""
        if task.status is TaskStatus.PROCESSING:
            if (checkpoint := read_checkpoint(self.files(task.id).progress)) is not None:
                return self._with_progress(task, checkpoint)
            task = self._recorded(task.id)  # a task that is done by now has no progress file any more
        if task.status.is_final and any("cut" in item for item in task.failed_items):
            checkpoint = read_checkpoint(self.files(task.id).progress)
            return replace(task, failed_items=self._first_rejects(task, checkpoint) or task.failed_items)
        return task

    def _with_progress(self, task: Task, checkpoint: Checkpoint) -> Task:
        changes = checkpoint.fields_of_task | {
            "load_seconds": max(task.load_seconds, checkpoint.seconds),  # an attempt fails after its last checkpoint
            "failed_items": self._first_rejects(task, checkpoint),
            # The record is newer than a checkpoint of an earlier attempt.
            "updated_at": max(task.updated_at, checkpoint.saved_at or task.updated_at),
        }
        return replace(task, **changes)

    def _first_rejects(self, task: Task, checkpoint: Checkpoint | None) -> tuple[dict[str, Any], ...]:
        found = known_rejects(self.files(task.id), checkpoint=checkpoint, count=task.counts.failed)
        try:
            return tuple(itertools.islice(found, FAILED_ITEMS))
        except JournalDamaged as error:
            self._warn(str(error))
            return task.failed_items

    def _recorded(self, task_id: str) -> Task:
        return self._task(self.table.find(task_id))

    def _task(self, record: Record) -> Task:
        try:
            return Task.from_record(record)
        except ValueError as error:
            raise JournalDamaged(path=f"{self.folder}, task {record.get('id')}", reason=str(error)) from error

    def _readable(self, records: Iterator[Record]) -> Iterator[Task]:
        for record in records:
            try:
                yield self._task(record)
            except JournalDamaged as error:
                self._warn(str(error))

    def _warn(self, message: str) -> None:
        if message not in self.warnings:  # the same file may be read many times
            self.warnings.append(message)


def _created_since(tasks: Iterator[Task], since: str) -> Iterator[Task]:
    """Yield the tasks that are not older than a time, from a sequence of tasks with the newest first."""
    older = 0
    for task in tasks:
        older = older + 1 if task.created_at < since else 0
        if not older:
            yield task
        elif older > SEGMENT_TASKS:  # not at the first older task: clocks are set back, and tasks are brought back
            return
