"""What the main thread does in its waits: shows how far the task is, and ends the wait when the task should stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from upsert_cli.context import Progress
from upsert_cli.errors import Interrupted
from upsert_cli.load.observer import Observer
from upsert_cli.load.stop import Stopping
from upsert_cli.store.process import LAST_WRITE_SECONDS

PULSE_SECONDS = 0.1  # seconds between two looks at the progress


class Lookout:
    """Looks around for one attempt at a task."""

    def __init__(self, stopping: Stopping, observer: Observer, progress: Progress, *, is_shared: bool) -> None:
        """Looks at nothing yet.

        Args:
            stopping: Why the task should stop, if it should.
            observer: Told how it goes.
            progress: How it goes.
            is_shared: Whether a server is written to, which may be left with what it was sent.
        """
        self._stopping = stopping
        self._observer = observer
        self._progress = progress
        self._is_shared = is_shared
        self._writing = False
        self._next_pulse = 0.0
        self._announced = False
        self._said: SimpleQueue[str] = SimpleQueue()

    def say(self, message: str) -> None:
        """Keeps what any thread has to say until the main thread says it."""
        self._said.put(message)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lets what Chroma is at end before anything else does."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def wait(self, commit: Callable[[], None] | None = None) -> None:
        """Is called every moment of a wait.

        Args:
            commit: What can be done meanwhile.

        Raises:
            Interrupted: A signal came.
            Canceled: Another process asked for it.
        """
        self.pulse()
        if commit is not None:
            commit()
        # A server may be asked again for minutes, and what is sent may be sent once more by the next attempt.
        if not self._writing or (self._is_shared and self._stopping.has_waited(LAST_WRITE_SECONDS)):
            self._stopping.check()

    def pulse(self) -> None:
        """Shows how far the task is, and what is said meanwhile; raises nothing."""
        if isinstance(self._stopping.reason, Interrupted) and not self._announced:
            self._announced = True
            self._observer.told("stopping after the batch in flight; a second signal ends it at once")
        if time.monotonic() >= self._next_pulse:
            self._next_pulse = time.monotonic() + PULSE_SECONDS
            self._observer.progressed(self._progress)
            while not self._said.empty():
                self._observer.told(self._said.get())

    def check(self) -> None:
        """Looks, in any thread, whether the main thread knows of a reason to stop, and raises it."""
        if self._stopping.reason is not None:
            raise self._stopping.reason
