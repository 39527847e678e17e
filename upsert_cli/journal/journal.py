"""The journal of tasks: create, find, list, change, claim; whole at every instant, whoever is killed.

Lock order, for those who hold more than one: target, task lease, allocation, segment. Reading takes no lock.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from upsert_cli.errors import JournalDamaged, TaskExists, TaskRunning, WrongStatus
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.courses import Course, read_course
from upsert_cli.journal.files import locked, reading_from, writing_to
from upsert_cli.journal.history import History
from upsert_cli.journal.layout import FORMAT, Layout
from upsert_cli.journal.leases import take_task_lease
from upsert_cli.journal.present import Present
from upsert_cli.journal.pruning import OldTask, Wanted, old_tasks, prune
from upsert_cli.journal.repair import repair
from upsert_cli.journal.segments import Damage
from upsert_cli.journal.spool import new_incoming, remove_stale
from upsert_cli.journal.taskdamage import damaged_task_files, mended_task_files
from upsert_cli.journal.taskfile import SEGMENT_TASKS, Record
from upsert_cli.journal.tasks import Task, TaskStatus
from upsert_cli.leases import Lease

__all__ = ["Claim", "Damage", "Journal"]

# Inside the class, `list` is the method.
Tasks: TypeAlias = list[Task]
Lines: TypeAlias = list[str]
OldTasks: TypeAlias = list[OldTask]


class Journal:
    """All tasks of a journal folder; an object serves one thread."""

    def __init__(self, folder: Path) -> None:
        """Touches nothing; the folder is made when the first task is created."""
        self.folder = folder.absolute()
        self.warnings: list[str] = []
        """What was found damaged, and what was done about it; one line each, for the caller to show."""

        self._layout = Layout(self.folder)
        self._history = History(self.folder, warn=self._warn)
        self._present = Present(self._layout, find=self._recorded, warn=self._warn)

    # -- reading --------------------------------------------------------------------------------------------------

    def find(self, task_id: str) -> Task:
        """Returns a task; while it is being processed, with the progress of its last checkpoint.

        Raises:
            TaskNotFound: There is none of this id.
            JournalDamaged: Its record makes no sense.
        """
        self._be_of_this_format()
        return self._present.as_of_now(self._recorded(task_id))

    def list(
        self, *, offset: int = 0, limit: int = 100, status: TaskStatus | None = None, since: str | None = None
    ) -> Tasks:
        """Returns tasks, the newest first, like `find`; reads no segment that is not needed for that.

        Args:
            offset: Tasks to leave out.
            limit: Tasks to return at most.
            status: Only those in this state.
            since: Only those created at this moment or later, UTC.
        """
        self._be_of_this_format()
        found = self._readable(self._history.newest_first(status))
        tasks = found if since is None else _created_since(found, since)
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

    # -- writing --------------------------------------------------------------------------------------------------

    def repair(self) -> Lines:
        """Deals with damage as far as that can be, and returns what was done, one line a step; no good task is lost.

        Raises:
            JournalTooNew: It was written by a newer version; nothing is touched.
        """
        steps: Lines = []
        if self.folder.exists():
            history = History(self.folder, warn=steps.append)
            with self._allocation(steps.append), closing(history):
                repair(self.folder, history, tell=steps.append)
            steps += mended_task_files(self._layout, claim=self.claim)
        self.close()
        return steps

    def create(self, task: Task) -> Task:
        """Puts a new task into the journal; it survives a power failure from then on.

        Raises:
            TaskExists: The id is taken.
        """
        progress = self._layout.progress(task.id)
        with self._allocation():
            self._refuse_taken(task.id)
            with writing_to(progress):
                progress.unlink(missing_ok=True)  # of a task that was lost with its segment
            self._history.append(task.id, task.as_record())
        return task

    def change(self, task_id: str, to: TaskStatus, *, expect: Collection[TaskStatus], **fields: object) -> Task:
        """Moves a task into another state if it is in an expected one; nobody comes in between.

        What its checkpoint says goes into the record as well, where `fields` does not say otherwise.

        Args:
            task_id: The task.
            to: Its new state.
            expect: The states in which it may be.
            **fields: Other fields of the task to set.

        Raises:
            TaskNotFound: There is none of this id.
            WrongStatus: It is in another state.
        """
        self._be_of_this_format()
        with self._history.changing(task_id) as (file, record):
            task = self._task(record)
            if task.status not in expect:
                raise WrongStatus(task_id=task_id, status=task.status, wanted=tuple(expect))
            if task.status is TaskStatus.PROCESSING:
                task = self._present.with_progress(task)
            task = task.moved(to, **fields)
            file.update(task.as_record())
        return task

    def bring_back(self, task: Task) -> bool:
        """Gives a task the record that damage cost it; only who has the right to run it may call this.

        Returns:
            Whether that was possible: not where the id stands for another task by now.
        """
        with self._allocation():
            done = self._history.bring_back(task.as_record())
        if done:
            self._warn(f"the journal had lost that task {task.id} was being run; its runner has put that right")
        return done

    def remove(self, task_id: str) -> None:
        """Takes a task out of the journal; only who has the right to run it may call this."""
        self._be_of_this_format()
        self._history.remove(task_id)

    def prune(self, wanted: Wanted, *, dry_run: bool = False) -> OldTasks:
        """Removes old tasks with all that goes with them, never one that is running or pending; returns those.

        Args:
            wanted: Which ones.
            dry_run: Only tell which.
        """
        self._be_of_this_format()
        chosen = [*old_tasks(self._history, wanted)]
        if dry_run or not self.folder.exists():
            return chosen
        return [*prune(self._layout, self._history, chosen, allocation=self._allocation, is_running=self.is_running)]

    def request_cancel(self, task_id: str) -> Task:
        """Cancels a task that nobody runs, at once, or asks its runner to; a canceled one is returned as it is.

        Raises:
            TaskNotFound: There is none of this id.
            WrongStatus: It has ended otherwise.
        """
        while True:
            task = self.find(task_id)
            if task.status is TaskStatus.CANCELED:
                return task
            if task.status.is_final:
                raise WrongStatus(
                    task_id=task_id, status=task.status, wanted=(TaskStatus.PENDING, TaskStatus.PROCESSING)
                )
            try:
                return self._cancel(task)
            except (TaskRunning, WrongStatus):
                continue  # it was started, or ended, in this moment

    def claim(self, task_id: str) -> Claim:
        """Takes the right to run a task, until it is released or this process ends.

        Raises:
            TaskNotFound: There is none of this id.
            TaskRunning: Somebody has it.
        """
        self._be_of_this_format()
        self._history.find(task_id)
        return Claim(task_id, take_task_lease(self._layout.lease(task_id), task_id), records=self, layout=self._layout)

    # -- files that go with a task --------------------------------------------------------------------------------

    def rejects_path(self, task_id: str) -> Path:
        """Returns the file with the rejects of a task; it may not exist."""
        return self._layout.rejects(task_id)

    def retry_path(self, task_id: str) -> Path:
        """Returns the file with the rejects that an attempt at a task retries; it may not exist."""
        return self._layout.retry(task_id)

    def missing_path(self, task_id: str) -> Path:
        """Returns the file with the records that a task is to delete in its end; it may not exist."""
        return self._layout.missing(task_id)

    def rejects(self, task_id: str) -> Iterator[dict[str, Any]]:
        """Yields the items of a task that could not be loaded; while they are retried, also those that wait for it."""
        return self._present.rejects(task_id)

    def course(self, task_id: str) -> Course:
        """Returns how a task went, in a few points; an empty course where that is not known."""
        return read_course(self._layout.course(task_id))

    @property
    def server_leases(self) -> Path:
        """The folder for what keeps two loads out of one collection on a server; it may not exist."""
        return self._layout.servers

    def spool_folder(self, task_id: str) -> Path:
        """Returns the folder with what a task read from standard input; it may not exist."""
        return self._layout.spooled(task_id)

    def incoming_folder(self) -> Path:
        """Makes a private folder for standard input that is read before there is a task."""
        with self._allocation(), writing_to(self._layout.spool):
            remove_stale(self._layout.spool)
            return new_incoming(self._layout.spool)

    def adopt_spool(self, incoming: Path, task_id: str) -> Path:
        """Makes an incoming folder the spool of a task that is about to be created, and returns its new path.

        Raises:
            TaskExists: The id is taken.
        """
        target = self._layout.spooled(task_id)
        with self._allocation(), writing_to(target):
            self._refuse_taken(task_id)
            if target.exists():  # left by somebody who was killed before there was a task
                target.rename(new_incoming(self._layout.spool))
            return incoming.rename(target)

    def close(self) -> None:
        """Closes the files that reading keeps open; the journal can be used again."""
        self._history.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _allocation(self, warn: Callable[[str], None] | None = None) -> Iterator[None]:
        self._layout.read_format()  # nothing is written into a journal of a newer format
        with writing_to(self.folder):
            self._layout.make_folders()
        with locked(self._layout.allocation_lock):
            with writing_to(self.folder):
                self._layout.complete(warn or self._warn)
            yield

    def _be_of_this_format(self) -> None:
        found = self._layout.read_format()
        if found is not None and found < FORMAT:
            with self._allocation():
                return

    def _refuse_taken(self, task_id: str) -> None:
        if self._history.is_taken(task_id):
            raise TaskExists(task_id=task_id)

    def _cancel(self, task: Task) -> Task:
        if task.status is TaskStatus.PENDING:
            return self.change(task.id, TaskStatus.CANCELED, expect=(TaskStatus.PENDING,))
        if self.is_running(task.id):
            return self.change(task.id, TaskStatus.PROCESSING, expect=(TaskStatus.PROCESSING,), cancel_requested=True)
        with self.claim(task.id):  # so that no new runner starts meanwhile
            return self.change(task.id, TaskStatus.CANCELED, expect=(TaskStatus.PROCESSING,))

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
