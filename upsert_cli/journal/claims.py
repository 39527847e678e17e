"""The right to run a task, which one process has at a time, and what goes with it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Protocol

from upsert_cli.atomic import sync
from upsert_cli.errors import (
    JournalDamaged,
    JournalUnreadable,
    JournalUnwritable,
    RejectsLost,
    TaskNotFound,
    WrongStatus,
)
from upsert_cli.journal.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from upsert_cli.journal.layout import Layout
from upsert_cli.journal.receipts import Receipts, remove_receipts
from upsert_cli.journal.rejects import RejectsFile
from upsert_cli.journal.state_files import writing_to
from upsert_cli.journal.task import Task, TaskStatus, utc_now
from upsert_cli.journal.timeline import Timeline, read_timeline, write_timeline
from upsert_cli.locks import Lease


class TaskRecords(Protocol):
    """What a claim asks of the journal."""

    def change(self, task_id: str, to: TaskStatus, *, expect: Collection[TaskStatus], **fields: object) -> Task:
        """Moves a task into another state."""

    def is_cancel_requested(self, task_id: str) -> bool:
        """Tells whether somebody asked for the end of a running task."""

    def bring_back(self, task: Task) -> bool:
        """Gives a task the record that damage cost it."""

    def remove(self, task_id: str) -> None:
        """Takes a task out of the journal."""


class Claim:
    """The right to run a task, for as long as it is not released and this process lives; changes no state by itself."""

    def __init__(self, task_id: str, lease: Lease, *, records: TaskRecords, layout: Layout) -> None:
        """Takes over a lease; use `Journal.claim`."""
        self.task_id = task_id
        self._lease = lease
        self._records = records
        self._lease_path = layout.lease(task_id)
        self._progress = layout.progress(task_id)
        self._rejects = layout.rejects(task_id)
        self._retry = layout.retry(task_id)
        self._receipts = layout.receipts(task_id)
        self._course = layout.course(task_id)
        self._missing = layout.missing(task_id)
        self._spooled = layout.spooled(task_id)
        self._cancel_requested = False
        self._released = False

    def release(self) -> None:
        """Lets others run the task."""
        if self._released:
            return
        self._released = True
        # Only while it is held, or it might be somebody else's. Who waits for its lock sees that the file is gone.
        with suppress(OSError):  # a file that stays is in nobody's way
            self._lease_path.unlink()
        self._lease.release()

    def checkpoint(self) -> Checkpoint | None:
        """Returns where to go on, or None to begin at the start; rows that are repeated change nothing."""
        found = read_checkpoint(self._progress)
        return found if found is not None and self._has_rejects_of(found) else None

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint, which is what moves the time at which the task was updated."""
        write_checkpoint(self._progress, replace(checkpoint, saved_at=utc_now()))

    def course(self) -> Timeline:
        """Returns how the task went so far."""
        return read_timeline(self._course)

    def save_course(self, course: Timeline) -> None:
        """Keeps a course in place of the one before."""
        write_timeline(self._course, course)

    def drop_checkpoint(self) -> None:
        """Makes the next attempt begin at the start."""
        with writing_to(self._progress):
            self._progress.unlink(missing_ok=True)
            self._retry.unlink(missing_ok=True)
            self._missing.unlink(missing_ok=True)
        remove_receipts(self._receipts)

    def receipts(self) -> Receipts:
        """Opens the receipts of the units that are done, where the task is loaded in units."""
        return Receipts.open_at(self._receipts)

    def retry_rejects(self, task: Task, start: dict[str, Any]) -> None:
        """Makes the next attempt read the rejected rows alone; goes on where such an attempt was interrupted.

        Args:
            task: As it is now; all its rows were read, and some were rejected.
            start: The position at which the sources begin.

        Raises:
            RejectsLost: The rejects file does not hold what the task counts.
        """
        found = None if task.status is TaskStatus.DONE else self.checkpoint()
        if found is not None and found.retried is not None and found.retried < RejectsFile.count(self._retry):
            return
        length = None if found is None else found.rejects_bytes
        if RejectsFile.count(self._rejects, length=length) == task.counts.failed:
            # Renamed before there is a checkpoint that speaks of it: a crash in between leaves the second case.
            RejectsFile.open_at(self._rejects, RejectsFile.size(self._rejects) if length is None else length).close()
            with writing_to(self._retry):
                self._rejects.replace(self._retry)
                sync(self._retry.parent)
        elif RejectsFile.count(self._retry) != task.counts.failed:
            raise RejectsLost(task_id=task.id, failed=task.counts.failed)
        self.save(Checkpoint(position=start, rows=task.rows, counts=task.counts, converted=task.converted, retried=0))

    def cancel_requested(self) -> bool:
        """Tells whether somebody asked for the end of this task; cheap enough to be polled."""
        try:
            self._cancel_requested = self._records.is_cancel_requested(self.task_id)
        except (JournalDamaged, JournalUnreadable, TaskNotFound):
            # A journal that cannot be read at this moment is no reason to stop a load; the end of it will tell.
            return self._cancel_requested
        return self._cancel_requested

    def finish(
        self,
        status: TaskStatus,
        *,
        detail: str | None,
        failed_items: Iterable[Mapping[str, Any]],
        checkpoint: Checkpoint | None,
        seconds: Mapping[str, float] | None = None,
        stopped_by: str | None = None,
        begun: Task | None = None,
    ) -> Task:
        """Writes how this attempt ended into the task's record, and returns the task.

        The checkpoint stays, unless the task is done, since a restart of what failed or was canceled goes on from it.

        Args:
            status: `done`, `failed`, `canceled` or `refused`; or `pending`, for another attempt.
            detail: One line of reason.
            failed_items: The first rejects.
            checkpoint: What was settled last; None leaves rows and counts as they are.
            seconds: How long each stage of the attempt was busy.
            stopped_by: The name of the signal that ended it, if one did.
            begun: The task as this attempt began it, for a journal that was damaged meanwhile.
        """
        settled: dict[str, Any] = {}
        if checkpoint is not None:
            settled = {"rows": checkpoint.rows, "counts": checkpoint.counts, "converted": checkpoint.converted}
        change = partial(
            self._records.change,
            self.task_id,
            status,
            expect=(TaskStatus.PROCESSING,),
            detail=detail,
            failed_items=tuple(dict(item) for item in failed_items),
            seconds=dict(seconds or {}),
            stopped_by=stopped_by,
            **settled,
        )
        try:
            task = change()
        except (TaskNotFound, WrongStatus):
            # Nobody else may end it, so the journal was damaged meanwhile, and what it restored knows no such attempt.
            if begun is None or not self._records.bring_back(begun):
                raise
            task = change()
        if status is TaskStatus.DONE:
            with suppress(JournalUnwritable):  # what is left of it is dropped by the next attempt
                self.drop_checkpoint()
        return task

    def withdraw(self) -> None:
        """Takes the task out of the journal with all that goes with it, as if it had never been created."""
        import shutil

        self._records.remove(self.task_id)
        shutil.rmtree(self._spooled, ignore_errors=True)
        for path in (self._progress, self._rejects, self._retry, self._missing, self._course):
            with writing_to(path):
                path.unlink(missing_ok=True)
        remove_receipts(self._receipts)

    def _has_rejects_of(self, checkpoint: Checkpoint) -> bool:
        """Tells whether all rejects that a checkpoint counts are there; the task could never be done without them."""
        # Neither file is forced to the disk at once: after a power failure, rejects may be gone.
        try:
            count, size = RejectsFile.extent(self._rejects, length=checkpoint.rejects_bytes)
        except JournalDamaged:
            return False
        # In a retry, the others that are counted wait in a file of their own.
        is_all = checkpoint.retried is not None or count == checkpoint.counts.failed
        return is_all and size == checkpoint.rejects_bytes

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
