"""The display of a run while it goes on: its start, its progress, its rejects, and messages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from upsert_cli.cli.display.frame import restore_cursor
from upsert_cli.cli.display.load_summary import show_start
from upsert_cli.cli.display.progress import open_display
from upsert_cli.cli.display.session import Session
from upsert_cli.context import Progress

if TYPE_CHECKING:
    from upsert_cli.journal.task import Task

EVENT_SECONDS = 1.0  # seconds between two progress events of `--json`


class RunObserver:
    """The observer of one run, which shows its progress to the user and prints events for programs."""

    def __init__(self, session: Session) -> None:
        self.info = session.info
        self.warning = session.warning
        self.task: Task | None = None
        """The task at the start of the attempt."""

        self.progress = Progress(total=None)
        """The progress when it was last shown."""

        self._terminal = session.terminal
        self._events = session.events
        self._display = open_display(session.terminal, json=session.events.wanted)
        self._began = time.monotonic()
        self._next_event = 0.0

    @property
    def seconds(self) -> float:
        """The seconds since the run began."""
        return time.monotonic() - self._began

    def started(self, task: Task) -> None:
        """Show that an attempt begins."""
        self.task = task
        self._events.task(task)
        show_start(self._terminal, task)

    def progressed(self, progress: Progress) -> None:
        """Show the progress, and print an event now and then."""
        self.progress = progress
        self._display.update(progress)
        if self._events.wanted and time.monotonic() >= self._next_event:
            self._next_event = time.monotonic() + EVENT_SECONDS
            rows = {"rows": progress.committed, "total": progress.total}
            done = {"read": progress.read, "embedded": progress.embedded, "counts": progress.counts.as_json()}
            self._events.emit("progress", rows | done)

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Print an event for each reject."""
        for record in records:
            self._events.emit("reject", record)

    def killed(self) -> None:
        """Leave the terminal usable, since the process ends without clean-up."""
        restore_cursor()

    def close(self) -> None:
        """Leave the last state of the progress on the screen, and restore the terminal."""
        self._display.close()
