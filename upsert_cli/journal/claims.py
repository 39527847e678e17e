"""The claim of a task: the right to run it, which one process has at a time."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from upsert_cli.atomic import make_folder, sync
from upsert_cli.errors import (
    Canceled,
    JournalDamaged,
    JournalUnreadable,
    JournalUnwritable,
    TaskNotFound,
    TaskRunning,
    WrongStatus,
)
from upsert_cli.journal.files import remove, writing_to
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.progress import Checkpoint, read_checkpoint, write_checkpoint
from upsert_cli.journal.rejects import JsonLines, count_rejects, file_size, rejects_extent, rejects_lost
from upsert_cli.journal.task import Task, TaskStatus, utc_now
from upsert_cli.leases import Holder, Lease, LeaseHeld


class Claim:
    """The right to run a task, until it is released or this process ends; it changes no state by itself."""

    def __init__(self, journal: Journal, task_id: str, lease: Lease) -> None:
        """Take over a lease; callers use `take`."""
        self.task_id = task_id
        self.lease = lease
        self.files = journal.files(task_id)
        self.leases = journal.layout.servers
        """The folder for the leases on collections of servers."""

        self._journal = journal
        self._cancel_requested = False
        self._released = False

    @classmethod
    def take(cls, journal: Journal, task_id: str) -> Claim:
        """Take the right to run a task.

        Raises:
            TaskNotFound: No task has this id.
            TaskRunning: Another process runs the task.
        """
        journal.layout.check_format()
        journal.table.find(task_id)
        path = journal.files(task_id).lease
        with writing_to(path):
            make_folder(path.parent)
            try:
                return cls(journal, task_id, Lease.take(path, Holder.this_process(task_id)))
            except LeaseHeld as error:
                raise TaskRunning(task_id=task_id, holder=str(error.holder)) from error

    def release(self) -> None:
        """Let others run the task."""
        if self._released:
            return
        self._released = True
        # While the lock is held, or the file might be another process's; a process that waits for it notices.
        with suppress(OSError):  # a file that stays does no harm
            self.files.lease.unlink()
        self.lease.release()

    def begin(self) -> Task:
        """Set the pending task to processing, and return it.

        Raises:
            Canceled: The task was canceled a moment ago.
        """
        begun: dict[str, Any] = {"started_at": utc_now(), "detail": None, "failed_items": ()}
        try:
            return self._journal.change(self.task_id, TaskStatus.PROCESSING, expect=(TaskStatus.PENDING,), **begun)
        except WrongStatus as error:
            if error.status == TaskStatus.CANCELED:
                raise Canceled(task_id=self.task_id) from error
            raise

    def task(self) -> Task:
        """Return the task in its present state."""
        return self._journal.find(self.task_id)

    def taken_over(self) -> Task:
        """Return the task; cancel it first if its runner died before it saw the request."""
        task = self.task()
        if task.status is TaskStatus.PROCESSING and task.cancel_requested:
            return self.finish(TaskStatus.CANCELED, detail=str(Canceled(task_id=task.id)))
        return task

    def set_back(self, *, heeds_cancel: bool, **changes: object) -> Task:
        """Make the task pending again, with other fields changed, and return it.

        With `heeds_cancel`, a canceled task stays canceled, and a task whose runner was asked to stop before it died is
        canceled instead.
        """
        return self._journal.change(
            self.task_id,
            TaskStatus.PENDING,
            expect=tuple(TaskStatus),
            heeds_cancel=heeds_cancel,
            detail=None,
            **changes,
        )

    def start_over(self, *, heeds_cancel: bool, **changes: object) -> Task:
        """Make the task pending, so that the next attempt begins at the start of its sources; see `set_back`."""
        self.drop_checkpoint()
        task = self.task()
        next_attempt = task.attempt + (task.started_at is not None)
        counted_from = {"first_attempt": next_attempt, "failed_items": ()} | Checkpoint(position={}).fields_of_task
        return self.set_back(heeds_cancel=heeds_cancel, **(counted_from | changes))

    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint to continue at, or None to begin at the start; repeated rows change nothing."""
        found = read_checkpoint(self.files.progress)
        return found if found is not None and self._has_rejects_of(found) else None

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint, and with it the time at which the task was updated."""
        write_checkpoint(self.files.progress, replace(checkpoint, saved_at=utc_now()))

    def drop_checkpoint(self) -> None:
        """Make the next attempt begin at the start."""
        remove(self.files.of_attempt)

    def retry_rejects(self, task: Task, start: dict[str, Any]) -> None:
        """Make the next attempt read only the rejected rows, or continue an interrupted attempt of that kind.

        All rows of the task were read, and some were rejected. `start` is the position at which its sources begin.

        Raises:
            UpsertCliError: The rejects file lacks rejects that the task counts.
        """
        found = None if task.status is TaskStatus.DONE else self.checkpoint()
        if found is not None and found.retried is not None and found.retried < count_rejects(self.files.retry):
            return  # an interrupted retry has rejects left
        length = None if found is None else found.rejects_bytes
        if count_rejects(self.files.rejects, length=length) == task.counts.failed:
            self._make_retry_file(length)
        elif count_rejects(self.files.retry) != task.counts.failed:  # it has all if a crash came before `save`
            raise rejects_lost(task.id, task.counts.failed)
        self.save(
            Checkpoint(
                position=start,
                rows=task.rows,
                counts=task.counts,
                converted=task.converted,
                seconds=task.load_seconds,
                retried=0,
            )
        )

    def _make_retry_file(self, length: int | None) -> None:
        """Make the rejects file, or its first `length` bytes, the retry file."""
        rejects, retry = self.files.rejects, self.files.retry
        JsonLines.open_at(rejects, file_size(rejects) if length is None else length).close()
        with writing_to(retry):
            rejects.replace(retry)
            sync(retry.parent)

    def cancel_requested(self) -> bool:
        """Check whether the task is to be canceled; cheap enough to be polled."""
        # A journal that cannot be read at this moment does not stop a load; the end of the load reports it.
        with suppress(JournalDamaged, JournalUnreadable, TaskNotFound):
            record = self._journal.table.find(self.task_id)  # a stat, unless the segment changed
            # After damage to the journal, the task may look as if nobody ran it, and is then canceled at once.
            is_canceled = record.get("status") == TaskStatus.CANCELED
            self._cancel_requested = is_canceled or record.get("cancel_requested") is True
        return self._cancel_requested

    def finish(
        self, status: TaskStatus, *, checkpoint: Checkpoint | None = None, begun: Task | None = None, **fields: object
    ) -> Task:
        """Record the end of this attempt, and return the task.

        The checkpoint stays unless the task is done, so that a restart continues there. If a signal stopped a task that
        was to be canceled, it is canceled.

        Args:
            status: `done`, `failed`, `canceled` or `refused`; or `pending`, for another attempt.
            checkpoint: The last one, whose rows and counts the record gets; None for the saved one.
            begun: The task as this attempt began it, in case the journal was damaged since.
            **fields: Other fields of the task to set.
        """
        if checkpoint is not None:
            fields |= checkpoint.fields_of_task
        change = partial(
            self._journal.change,
            self.task_id,
            status,
            expect=(TaskStatus.PROCESSING,),
            heeds_cancel=status is TaskStatus.PENDING or fields.get("stopped_by") is not None,
            **fields,
        )
        try:
            task = change()
        except (TaskNotFound, WrongStatus):
            # No other process may end the task, so the journal was damaged, and an older record was restored.
            if begun is None or not self._journal.bring_back(begun):
                raise
            task = change()
        if status is TaskStatus.DONE:
            with suppress(JournalUnwritable):  # the next attempt drops the files that are left
                self.drop_checkpoint()
        return task

    def withdraw(self) -> None:
        """Remove the task from the journal with all its files, as if it had never been created."""
        self._journal.table.remove(self.task_id)
        remove(path for path in self.files.all if path != self.files.lease)

    def _has_rejects_of(self, checkpoint: Checkpoint) -> bool:
        """Check that the rejects file has all rejects that a checkpoint counts; without them, no task can be done."""
        # Neither file is forced to the disk at once, so a power failure may cost rejects.
        try:
            count, size = rejects_extent(self.files.rejects, length=checkpoint.rejects_bytes)
        except JournalDamaged:
            return False
        # In a retry, the other counted rejects are in the retry file.
        is_all = checkpoint.retried is not None or count == checkpoint.counts.failed
        return is_all and size == checkpoint.rejects_bytes

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def request_cancel(journal: Journal, task_id: str) -> Task:
    """Cancel a task at once if no process runs it, or else ask its runner to stop; return the task.

    Raises:
        TaskNotFound: No task has this id.
        WrongStatus: The task has ended, and was not canceled.
    """
    while True:
        task = journal.find(task_id)
        if task.status is TaskStatus.CANCELED:
            return task
        if task.status.is_final:
            wanted = (TaskStatus.PENDING, TaskStatus.PROCESSING)
            raise WrongStatus(task_id=task_id, status=task.status, wanted=wanted)
        with suppress(TaskRunning, WrongStatus):  # the task was started, or ended, at this moment
            return _cancel(journal, task)


def _cancel(journal: Journal, task: Task) -> Task:
    pending, processing = (TaskStatus.PENDING,), (TaskStatus.PROCESSING,)
    if task.status is TaskStatus.PENDING:
        return journal.change(task.id, TaskStatus.CANCELED, expect=pending)
    if journal.is_running(task.id):
        return journal.change(task.id, TaskStatus.PROCESSING, expect=processing, cancel_requested=True)
    with Claim.take(journal, task.id):  # so that no process starts the task before the change
        return journal.change(task.id, TaskStatus.CANCELED, expect=processing)


def follow_rename(journal: Journal, task_id: str, *, collection: str) -> None:
    """Let a task continue in its collection under another name, unless it is running."""
    changing = journal.table.changing(task_id)
    with suppress(TaskRunning, TaskNotFound), Claim.take(journal, task_id), changing as (segment, record):
        segment.update(record | {"collection": collection})
