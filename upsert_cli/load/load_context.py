"""The context of one attempt at a task: shows its progress while it waits, and stops it when it has to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

from upsert_cli.context import Progress
from upsert_cli.errors import Interrupted
from upsert_cli.journal.progress import TimelineRecorder
from upsert_cli.load.observer import Observer
from upsert_cli.load.stop import Stopping
from upsert_cli.store.restarting import LAST_WRITE_SECONDS

SHOW_SECONDS = 0.1  # seconds between two updates of the progress


class LoadContext:
    """A `RunContext` whose main thread talks to an observer; other threads leave their messages to it."""

    def __init__(
        self,
        stopping: Stopping,
        observer: Observer,
        timeline: TimelineRecorder,
        progress: Progress,
        *,
        is_shared: bool,
    ) -> None:
        """Show nothing yet.

        Args:
            stopping: Knows whether the task has to stop.
            observer: Shows progress and messages.
            timeline: Keeps the progress for a report.
            progress: Counted by the stages.
            is_shared: The store is a server, which may be left while it writes; a folder's write has to end.
        """
        self.progress = progress
        self._stopping = stopping
        self._observer = observer
        self._timeline = timeline
        self._is_shared = is_shared
        self._writing = False
        self._next_show = 0.0
        self._announced = False
        self._messages: SimpleQueue[Callable[[], None]] = SimpleQueue()  # of other threads

    @property
    def has_to_stop(self) -> bool:
        """Return whether a signal or a cancel has arrived; asked by the main thread."""
        return self._stopping.is_wanted()

    def check(self) -> None:
        """Show the progress, in the main thread, and raise if the task has to stop.

        Raises:
            Interrupted: A signal arrived.
            Canceled: Another process canceled the task.
        """
        if threading.current_thread() is not threading.main_thread():
            if self._stopping.reason is not None:
                raise self._stopping.reason
            return
        if self._writing:
            self.check_last_write()
        else:
            self.show()
            self._stopping.check()

    def check_last_write(self) -> None:
        """Show the progress, and raise only if a server takes too long to end the write in flight.

        A server may be retried for minutes, and the next attempt sends the same again.
        """
        self.show()
        if self._is_shared and self._stopping.has_waited(LAST_WRITE_SECONDS):
            self._stopping.check()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let a write, a deletion or a flush of the main thread end before the task stops."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def show(self) -> None:
        """Show the progress and the messages of other threads."""
        if isinstance(self._stopping.reason, Interrupted) and not self._announced:
            self._announced = True
            self._observer.info("stopping after the batch in flight; a second signal ends it at once")
        if time.monotonic() >= self._next_show:
            self._next_show = time.monotonic() + SHOW_SECONDS
            self.show_now()
            while not self._messages.empty():
                self._messages.get()()

    def show_now(self) -> None:
        """Show the progress even if it was shown a moment ago."""
        lost = self._timeline.add(self.progress)
        if lost is not None:
            self.warning(lost)
        self._observer.progressed(self.progress)

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
