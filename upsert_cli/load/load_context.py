"""The context of one attempt at a task: shows its progress while it waits, and stops it at a signal or a cancel."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import Any, Protocol

from upsert_cli.context import Progress, RunContext
from upsert_cli.errors import Canceled, Interrupted, UpsertCliError
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.progress import TimelineRecorder
from upsert_cli.journal.task import Task
from upsert_cli.signals import SIGNALS, deadly_handler, die_by_signal
from upsert_cli.store.address import is_server
from upsert_cli.store.process import LAST_WRITE_SECONDS

SHOW_SECONDS = 0.1  # seconds between two updates of the progress
CANCEL_POLL_SECONDS = 0.25  # seconds between two checks of the cancel flag, which cost a stat


class Observer(Protocol):
    """An observer of a running task; called by the main thread only."""

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
    """A context whose main thread talks to an observer; other threads leave their messages to it."""

    def __init__(self, claim: Claim, task: Task, observer: Observer) -> None:
        """Show nothing yet, and watch no signals until `signals` is entered."""
        super().__init__(task.total)
        self.reason: UpsertCliError | None = None
        """The reason for which the task has to stop."""

        self._claim = claim
        self._task = task
        self._observer = observer
        self._timeline = TimelineRecorder(claim.files.timeline, task.attempt)
        self._writing = False
        self._announced = False
        self._next_show = self._next_poll = 0.0
        self._wanted_since: float | None = None
        self._messages: SimpleQueue[Callable[[], None]] = SimpleQueue()  # of other threads

    # -- stopping -------------------------------------------------------------------------------------------------

    @property
    def has_to_stop(self) -> bool:
        """Whether a signal or a cancel has arrived; asked by the main thread."""
        if self.reason is None and time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + CANCEL_POLL_SECONDS
            if self._claim.cancel_requested():
                self.reason = Canceled(task_id=self._task.id)
        return self.reason is not None

    def check(self) -> None:
        """Show the progress, in the main thread, and raise if the task has to stop.

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
        """Raise the reason to stop, if there is one; called by the main thread."""
        if self.has_to_stop and self.reason is not None:
            raise self.reason

    def check_last_write(self) -> None:
        """Show the progress, and raise only if a server takes too long to end the write in flight.

        A folder's write has to end. A server may be retried for minutes, and the next attempt sends the same again.
        """
        self.show()
        if is_server(self._task.chroma) and self.has_to_stop:
            self._wanted_since = self._wanted_since or time.monotonic()
            if time.monotonic() - self._wanted_since >= LAST_WRITE_SECONDS:
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
        """Stop the task soon at the first signal, and kill the process at the second."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers; an embedding program keeps its own
            return
        # A signal that is ignored from the start (nohup, a shell's background job) stays ignored.
        before = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
        for number in before:
            signal.signal(number, self._take)
        try:
            yield
        finally:
            for number, handler in before.items():
                # Once stopped, there is only the way to the end left: a further signal may kill at once.
                signal.signal(number, deadly_handler() if isinstance(self.reason, Interrupted) else handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if isinstance(self.reason, Interrupted):
            self._observer.killed()
            die_by_signal(number)
        # Also in place of a wish to cancel: who presses Ctrl-C wants this process to die by it.
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
        """Show the progress even if it was shown a moment ago, and keep it for a report; and all messages so far."""
        if (lost := self._timeline.add(self.progress, is_last=is_last)) is not None:
            self.warning(lost)
        if not is_last:
            self._observer.progressed(self.progress)
        while not self._messages.empty():
            self._messages.get()()

    def info(self, message: str) -> None:
        """Show a message, in the main thread."""
        self._in_main_thread(partial(self._observer.info, message))

    def warning(self, message: str) -> None:
        """Show a warning, in the main thread."""
        self._in_main_thread(partial(self._observer.warning, message))

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Show new records of the rejects file, in the main thread."""
        self._observer.rejected(records)

    def _in_main_thread(self, show: Callable[[], None]) -> None:
        if threading.current_thread() is threading.main_thread():
            show()
        else:
            self._messages.put(show)
