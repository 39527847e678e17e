"""Stopping a running task early: by a signal, or by a cancel from another process."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from upsert_cli.errors import Canceled, Interrupted, UpsertCliError
from upsert_cli.signals import SIGNAL_BASE, SIGNALS, deadly_handler, die_by_signal

CANCEL_POLL_SECONDS = 0.25  # seconds between two checks of the cancel flag, which cost a stat


class Stopping:
    """The reason for which a task has to stop, if there is one; the main thread checks it in all its waits."""

    def __init__(
        self, task_id: str, *, queued: bool, cancel_requested: Callable[[], bool], kill: Callable[[], None]
    ) -> None:
        """Watch no signals until `signals` is entered.

        Args:
            task_id: Named in the messages.
            queued: The task belongs to a worker and returns to the queue at a signal.
            cancel_requested: Reads the cancel flag in the journal.
            kill: Called at a second signal, before the process dies by it, to leave the terminal usable.
        """
        self.reason: UpsertCliError | None = None
        self._task_id = task_id
        self._queued = queued
        self._cancel_requested = cancel_requested
        self._kill = kill
        self._next_poll = 0.0
        self._wanted_since: float | None = None

    def check(self) -> None:
        """Raise the reason to stop, if there is one.

        Raises:
            Interrupted: A signal arrived.
            Canceled: Another process canceled the task.
        """
        if self.is_wanted() and self.reason is not None:
            raise self.reason

    def is_wanted(self) -> bool:
        """Return whether there is a reason to stop."""
        if self.reason is None and time.monotonic() >= self._next_poll:
            self._next_poll = time.monotonic() + CANCEL_POLL_SECONDS
            if self._cancel_requested():
                self.reason = Canceled(task_id=self._task_id)
        return self.reason is not None

    def has_waited(self, seconds: float) -> bool:
        """Return whether `seconds` have passed since this was first asked with a reason to stop."""
        if not self.is_wanted():
            return False
        self._wanted_since = self._wanted_since or time.monotonic()
        return time.monotonic() - self._wanted_since >= seconds

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Stop the task soon at the first signal, and kill the process at the second."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers; an embedding program keeps its own
            return
        # A signal that is ignored from the start (nohup, a shell's background job) stays ignored.
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._take)
        try:
            yield
        finally:
            for number, handler in before.items():
                # Once stopped, there is only the way to the end left: a further signal may kill at once.
                killed = isinstance(self.reason, Interrupted) and handler is not signal.SIG_IGN
                signal.signal(number, deadly_handler() if killed else handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if isinstance(self.reason, Interrupted):
            self._kill()
            die_by_signal(number)
        # Also in place of a wish to cancel: who presses Ctrl-C wants this process to die by it.
        self.reason = Interrupted(task_id=self._task_id, signal_number=number, queued=self._queued)


class EndedBySignal(BaseException):
    """Raised in the main thread by a signal that comes while no task is run, so that what was begun is cleaned up."""

    def __init__(self, number: int, when: str = "before anything was loaded") -> None:
        """Keeps the signal, to die by it."""
        super().__init__(number, when)
        self.number = number
        self._when = when

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name} {self._when}"


def end_in_order() -> None:
    """Unwind the program at a signal, with its clean-up; signals that are ignored stay ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise_ended)


def _raise_ended(number: int, _frame: FrameType | None) -> None:
    raise EndedBySignal(number)


def exit_code_of(error: Exception | EndedBySignal) -> int:
    """Returns the exit code of a process that an error ends."""
    if isinstance(error, EndedBySignal):
        return SIGNAL_BASE + error.number
    if isinstance(error, Interrupted):
        return SIGNAL_BASE + error.signal_number
    return error.exit_code if isinstance(error, UpsertCliError) else UpsertCliError.exit_code
