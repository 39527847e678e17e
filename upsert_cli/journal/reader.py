"""A journal's folder -> its tasks as they are at this moment, and what goes with each; takes no lock."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from upsert_cli.errors import AmbiguousTaskId, JournalDamaged, TaskNotFound
from upsert_cli.journal.layout import Layout
from upsert_cli.journal.segments import Damage
from upsert_cli.journal.spool import leftovers
from upsert_cli.journal.state_files import reading_from
from upsert_cli.journal.storage import SEGMENT_TASKS, Record
from upsert_cli.journal.task import DIED, LATEST, Task, TaskStatus
from upsert_cli.journal.task_damage import damaged_task_files
from upsert_cli.journal.task_snapshot import TaskSnapshot
from upsert_cli.journal.task_table import TaskTable
from upsert_cli.journal.timeline import Timeline, read_timeline
from upsert_cli.locks import Lease
from upsert_cli.owned_folders import Leftover

Tasks: TypeAlias = list[Task]  # inside the class, `list` is the method
Leftovers: TypeAlias = list[Leftover]


class JournalReader:
    """What is asked of a journal without changing it."""

    def __init__(self, folder: Path) -> None:
        """Touches nothing; the folder is made when the first task is created."""
        self.folder = folder.absolute()
        self.warnings: list[str] = []
        """What was found damaged, and what was done about it; one line each, for the caller to show."""

        self._layout = Layout(self.folder)
        self._history = TaskTable(self.folder, warn=self._warn)
        self._present = TaskSnapshot(self._layout, find=self._recorded, warn=self._warn)

    def resolve(self, name: str) -> str:
        """Return the id that a user means: an id, a beginning that only one id has, or `latest` for the newest task.

        Raises:
            TaskNotFound: No id begins so, or a damaged file may hold the very id.
            AmbiguousTaskId: Several do.
        """
        self._be_of_this_format()
        try:
            self._history.find(name)
        except TaskNotFound as error:
            if error.unreadable:
                raise
            if name == LATEST:
                newest = next(self.newest_first(), None)
                candidates = [] if newest is None else [newest.id]
            else:
                candidates = [*self._history.ids_from(name)]
            if not candidates:
                raise
            if len(candidates) > 1:
                raise AmbiguousTaskId(prefix=name, candidates=tuple(candidates)) from None
            return candidates[0]
        return name

    def find(self, task_id: str) -> Task:
        """Returns a task; while it is being processed, with the progress of its last checkpoint.

        Raises:
            TaskNotFound: There is none of this id.
            JournalDamaged: Its record makes no sense.
        """
        self._be_of_this_format()
        return self._present.as_of_now(self._recorded(task_id))

    def look_at(self, task_id: str) -> tuple[Task, bool]:
        """Return a task like `find`, and whether a process runs it at the same moment."""
        return self.with_runner(self.find(task_id))

    def with_runner(self, task: Task) -> tuple[Task, bool]:
        """Return a task that was just found, and whether a process runs it; if it has ended in between, as it ended."""
        running = not task.status.is_final and self.is_running(task.id)
        return (self.find(task.id) if task.has_died(running=running) else task), running

    def list(
        self, *, offset: int = 0, limit: int = 100, statuses: Collection[str] = (), since: str | None = None
    ) -> Tasks:
        """Returns tasks, the newest first, like `find`; reads no segment that is not needed for that.

        Args:
            offset: Tasks to leave out.
            limit: Tasks to return at most.
            statuses: Only those in one of these states; `died` is one of them. None: all.
            since: Only those created at this moment or later, UTC.
        """
        self._be_of_this_format()
        recorded = {TaskStatus.PROCESSING.value if status == DIED else str(status) for status in statuses}
        found = self._readable(self._history.newest_first(*recorded))
        tasks = found if since is None else _created_since(found, since)
        if DIED in statuses and TaskStatus.PROCESSING not in statuses:
            tasks = (task for task in tasks if task.status in statuses or self._has_died(task))
        return [self._present.as_of_now(task) for task in itertools.islice(tasks, offset, offset + limit)]

    def newest_first(self) -> Iterator[Task]:
        """Yields tasks like `list`, one by one, so that a long history does not fill the memory."""
        self._be_of_this_format()
        yield from map(self._present.as_of_now, self._readable(self._history.newest_first()))

    def waiting(self) -> Iterator[Task]:
        """Yields the queued tasks that no process runs, the oldest first: pending ones, and those whose runner died."""
        self._be_of_this_format()
        records = self._history.oldest_first(TaskStatus.PENDING, TaskStatus.PROCESSING)
        return (task for task in self._readable(records) if task.queued and not self.is_running(task.id))

    def is_running(self, task_id: str) -> bool:
        """Tells whether a process runs the task at this moment."""
        path = self._layout.lease(task_id)
        with reading_from(path):
            return Lease.peek(path) is not None

    def is_cancel_requested(self, task_id: str) -> bool:
        """Tells whether somebody asked for the end of a running task; a stat, unless the segment changed."""
        record = self._history.find(task_id)
        # After damage a task that is being run may look as if it were not, and then it is canceled at once.
        return record.get("cancel_requested") is True or record.get("status") == TaskStatus.CANCELED

    def damaged(self) -> tuple[Damage, ...]:
        """Returns the files of the journal that are damaged, and those that were and are moved aside."""
        meta = self._layout.meta
        lost = self._layout.read_format() is None and meta.exists()
        format_lost = [Damage(path=meta, reason="it does not say the journal's format")] if lost else []
        return (*format_lost, *self._history.damaged(), *(found.damage for found in damaged_task_files(self._layout)))

    def rejects_path(self, task_id: str) -> Path:
        """Returns the file with the rejects of a task; it may not exist."""
        return self._layout.rejects(task_id)

    def retry_path(self, task_id: str) -> Path:
        """Returns the file with the rejects that an attempt at a task retries; it may not exist."""
        return self._layout.retry(task_id)

    def missing_path(self, task_id: str) -> Path:
        """Returns the file with the records that a task is to delete in its end; it may not exist."""
        return self._layout.missing(task_id)

    @property
    def server_leases(self) -> Path:
        """The folder for what keeps two loads out of one collection on a server; it may not exist."""
        return self._layout.servers

    def spool_folder(self, task_id: str) -> Path:
        """Returns the folder with what a task read from standard input; it may not exist."""
        return self._layout.spooled(task_id)

    def rejects(self, task_id: str) -> Iterator[dict[str, Any]]:
        """Yields the items of a task that could not be loaded; while they are retried, also those that wait for it."""
        return self._present.rejects(task_id)

    def course(self, task_id: str) -> Timeline:
        """Returns how a task went, in a few points; an empty course where that is not known."""
        return read_timeline(self._layout.course(task_id))

    def leftovers(self) -> Leftovers:
        """Return what killed processes have left of standard input; nothing where a damaged file may hold its task."""
        if self.damaged():
            return []
        return [*leftovers(self._layout.spool, is_kept=self._history.is_taken)]

    def close(self) -> None:
        """Closes the files that reading keeps open; the journal can be used again."""
        self._history.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _be_of_this_format(self) -> None:
        """Refuses a journal that a newer version wrote."""
        self._layout.read_format()

    def _has_died(self, task: Task) -> bool:
        now, running = self.with_runner(task)
        return now.has_died(running=running)

    def _recorded(self, task_id: str) -> Task:
        return self._task(self._history.find(task_id))

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
        if message not in self.warnings:  # once, however often the same file is looked at
            self.warnings.append(message)


def _created_since(tasks: Iterator[Task], since: str) -> Iterator[Task]:
    """Yields those of a newest-first sequence that are not older; ends well behind the last one of them."""
    older = 0
    for task in tasks:
        older = older + 1 if task.created_at < since else 0
        if not older:
            yield task
        elif older > SEGMENT_TASKS:  # not at the first, since clocks are set back, and tasks are brought back
            return
