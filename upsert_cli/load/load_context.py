"""The context of one attempt at a task, which shows its progress and stops it at a signal or a cancel."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Protocol

from upsert_cli.context import Progress, RunContext
from upsert_cli.errors import Canceled, Interrupted, UpsertCliError
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.progress import TimelineRecorder
from upsert_cli.journal.task import Task
from upsert_cli.signals import die_by_signal, end_at_once, handle_signals, restore_handlers
from upsert_cli.store.address import is_server
from upsert_cli.store.process import LAST_WRITE_SECONDS

SHOW_SECONDS = 0.1  # seconds between two updates of the progress
CANCEL_POLL_SECONDS = 0.25  # seconds between two checks of the cancel flag; a check costs a stat


class Observer(Protocol):
    """An observer of a running task, which only the main thread calls."""

    def started(self, task: Task) -> None:
        """Called when the task begins to be processed."""

    def progressed(self, progress: Progress) -> None:
        """Called after each batch, and about ten times a second."""

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Called with new records of the rejects file."""

    def info(self, message: str) -> None:
        """Called before a step that takes long."""

    def warning(self, message: str) -> None:
        """Called with a message for the user that does not stop the load."""

    def killed(self) -> None:
        """Called in a signal handler at a second signal, before the process dies, to leave the terminal usable."""


class LoadContext(RunContext):
    """The context of one attempt; its main thread calls the observer, also with the messages of other threads."""

    def __init__(self, claim: Claim, task: Task, observer: Observer) -> None:
        """Show nothing yet, and handle no signals until `signals` is entered."""
        super().__init__(task.total)
        self.reason: UpsertCliError | None = None
        """The reason to stop the task, if there is one."""

        self._claim = claim
        self._task = task
        self._observer = observer
        self._timeline = TimelineRecorder(claim.files.timeline, task.attempt)
        self._writing = False
        self._announced = False
        self._next_show = self._next_poll = 0.0
        self._stopping_since: float | None = None
        self._messages: SimpleQueue[Callable[[], None]] = SimpleQueue()  # of other threads

    # -- stopping -------------------------------------------------------------------------------------------------

    @property
    def has_to_stop(self) -> bool:
        """Whether a signal or a cancel has arrived; only the main thread asks."""
        if self.reason is None and time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + CANCEL_POLL_SECONDS
            if self._claim.cancel_requested():
                self.reason = Canceled(task_id=self._task.id)
        return self.reason is not None

    def check(self) -> None:
        """Raise if the task has to stop; the main thread also shows the progress.

        Raises:
            Interrupted: A signal arrived.
            Canceled: Another process canceled the task.
        """
        if threading.current_thread() is not threading.main_thread():
            if self.reason is not None:
                raise self.reason
        elif self._writing:
            self.check_last_write()
        else:
            self.show()
            self.stop_if_wanted()

    def stop_if_wanted(self) -> None:
        """Raise the reason to stop, if there is one; only the main thread calls this."""
        if self.has_to_stop and self.reason is not None:
            raise self.reason

    def check_last_write(self) -> None:
        """Show the progress; raise if the task has to stop and a server does not end the write in flight in time.

        A write to a folder has to end. A write to a server may be retried for minutes, and the next attempt repeats it.
        """
        self.show()
        if is_server(self._task.chroma) and self.has_to_stop:
            self._stopping_since = self._stopping_since or time.monotonic()
            if time.monotonic() - self._stopping_since >= LAST_WRITE_SECONDS:
                self.stop_if_wanted()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let a write, a deletion or a flush of the main thread end before the task stops."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Stop the task at the first signal, and kill the process at the second."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers; a program that embeds this one keeps its own
            return
        before = handle_signals(self._take_signal)
        try:
            yield
        finally:
            if isinstance(self.reason, Interrupted):
                end_at_once()  # the process only has to end, so another signal may kill it
            else:
                restore_handlers(before)

    def _take_signal(self, number: int, _frame: object) -> None:
        if isinstance(self.reason, Interrupted):
            self._observer.killed()
            die_by_signal(number)
        # A signal replaces a cancel as the reason, since its sender wants this process to die by it.
        self.reason = Interrupted(task_id=self._task.id, signal_number=number, queued=self._task.queued)

    # -- showing --------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Show the progress and the messages of other threads."""
        if isinstance(self.reason, Interrupted) and not self._announced:
            self._announced = True
            self._observer.info("stopping after the batch in flight; a second signal ends it at once")
        if time.monotonic() >= self._next_show:
            self._next_show = time.monotonic() + SHOW_SECONDS
            self.show_now()

    def show_now(self, *, is_last: bool = False) -> None:
        """Show the messages of other threads and the progress, even if just shown; record it in the timeline."""
        if (lost := self._timeline.add(self.progress, is_last=is_last)) is not None:
            self.warning(lost)
        if not is_last:
            self._observer.progressed(self.progress)
        while not self._messages.empty():
            self._messages.get()()

    def info(self, message: str) -> None:
        """Show a message, in the main thread."""
        self._in_main_thread(lambda: self._observer.info(message))

    def warning(self, message: str) -> None:
        """Show a warning, in the main thread."""
        self._in_main_thread(lambda: self._observer.warning(message))

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Show new records of the rejects file, in the main thread."""
        self._observer.rejected(records)

    def _in_main_thread(self, show: Callable[[], None]) -> None:
        if threading.current_thread() is threading.main_thread():
            show()
        else:
            self._messages.put(show)
