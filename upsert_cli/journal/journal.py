"""The journal of tasks: create, change, claim, beside what its `Reader` tells; whole whoever is killed, at any time.

Lock order, for those who hold more than one: target, task lease, allocation, segment. Reading takes no lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from upsert_cli.errors import TaskExists, TaskRunning, WrongStatus
from upsert_cli.journal.checkpoint import take_task_lease
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.layout import FORMAT
from upsert_cli.journal.prune import OldTask, Wanted, old_tasks, prune
from upsert_cli.journal.reader import JournalReader
from upsert_cli.journal.salvage import repair
from upsert_cli.journal.spool import new_incoming, remove_stale
from upsert_cli.journal.state_files import locked, writing_to
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.journal.task_damage import mended_task_files
from upsert_cli.journal.task_table import TaskTable
from upsert_cli.owned_folders import own


class Journal(JournalReader):
    """All tasks of a journal folder; an object serves one thread."""

    def __init__(self, folder: Path) -> None:
        """Touch nothing; the folder is made when the first task is created."""
        super().__init__(folder)
        self._owned: list[int] = []

    def close(self) -> None:
        """Close the files that reading keeps open, and let go of folders; the journal can be used again."""
        super().close()
        while self._owned:
            os.close(self._owned.pop())

    def repair(self) -> list[str]:
        """Deals with damage as far as that can be, and returns what was done, one line a step; no good task is lost.

        Raises:
            JournalTooNew: It was written by a newer version; nothing is touched.
        """
        steps: list[str] = []
        if self.folder.exists():
            history = TaskTable(self.folder, warn=steps.append)
            with self._allocation(steps.append), closing(history):
                repair(self.folder, history, tell=steps.append)
            steps += mended_task_files(self._layout, claim=self.claim)
            steps += self._remove_leftovers()
        self.close()
        return steps

    def _remove_leftovers(self) -> list[str]:
        with self._allocation():  # in which nobody makes a folder that is not owned yet
            found = self.leftovers()
            for leftover in found:
                leftover.remove()
        return [f"{leftover.path.relative_to(self.folder)}: removed {leftover}" for leftover in found]

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

    def prune(self, wanted: Wanted, *, dry_run: bool = False) -> list[OldTask]:
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

    # -- standard input, which is kept so that a restart can read it again --------------------------------------------

    def incoming_folder(self) -> Path:
        """Make a private folder for standard input that is read before there is a task; it is ours until `close`."""
        with self._allocation(), writing_to(self._layout.spool):
            remove_stale(self._layout.spool)
            incoming = new_incoming(self._layout.spool)
            self._owned.append(own(incoming))
            return incoming

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
        """Brings a journal of an older format up to date."""
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
