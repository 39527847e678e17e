"""The progress of a running task: bars on a terminal, a line now and then in a log, nothing in a cron job."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from upsert_cli.cli.frame import Frame
from upsert_cli.cli.terminal import Terminal
from upsert_cli.context import Progress
from upsert_cli.text import counts_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from upsert_cli.journal.task import Task

PLAIN_SECONDS = 30.0  # seconds between two lines in a log
SPEED_SECONDS = 60.0  # seconds over which a rate is measured; a batch takes up to 5
SAMPLE_SECONDS = 0.5  # seconds between two samples of a rate
REFRESHES = 8.0  # per second; a terminal over ssh stays usable
SHOW_CURSOR = b"\x1b[?25h"

Clock = Callable[[], float]
Amount = tuple[int, int | None]
Bar = Callable[[Progress], Amount]

STAGE_BARS: Mapping[str, Bar] = {
    "read": lambda progress: (progress.read, progress.total),
    "embedded": lambda progress: (progress.embedded, progress.to_embed),
    "written": lambda progress: (progress.written, progress.to_write),
}
"""The bars of a task that this process runs; each returns how much is done, and of how much."""

ROWS_BAR: Mapping[str, Bar] = {"rows": lambda progress: (progress.committed, progress.total)}
"""The bar of a task that another process runs, whose stages are not known."""

_OTHER_STAGES = {
    "starting": "opening the collection and the model",
    "searching": "looking for records that the sources no longer hold",
    "deleting": "deleting records that the sources no longer hold",
    "repeats": "loading the last row of each id that occurs more than once",
    "flushing": "writing the index to disk",
}


class Display(Protocol):
    """A way to show progress."""

    def update(self, progress: Progress) -> None:
        """Show the progress; called often."""

    def close(self) -> None:
        """Leave the last state on the screen and restore the terminal."""


def open_display(terminal: Terminal, *, bars: Mapping[str, Bar] = STAGE_BARS, json: bool = False) -> Display:
    """Return the display that fits the terminal.

    Args:
        terminal: The terminal to show progress on.
        bars: The bars by their names.
        json: Whether events are printed; on the same terminal, they rule out bars.
    """
    match terminal.progress_kind:
        case "bar" if not (json and sys.stdout.isatty()):
            return Bars(terminal, bars)
        case "plain":
            return PlainLines(terminal)
    return Silence()


class Silence:
    """Shows nothing."""

    def update(self, progress: Progress) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Show nothing."""


def progress_of(task: Task) -> Progress:
    """Return the progress of a task that another process runs."""
    return Progress(total=task.total, committed=task.rows, counts=task.counts, stage="loading")


class Speed:
    """The recent growth of a number."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, done: int) -> None:
        """Take a sample if it is time for one."""
        now = self._clock()
        if self._samples and now - self._samples[-1][0] < SAMPLE_SECONDS:
            return
        self._samples.append((now, done))
        while self._samples[0][0] < now - SPEED_SECONDS:
            self._samples.popleft()

    def rate(self, done: int) -> float | None:
        """Return the growth per second; None if it is not known yet."""
        if not self._samples:
            return None
        began, before = self._samples[0]
        seconds = self._clock() - began
        return (done - before) / seconds if seconds > 0 and done > before else None

    def remaining(self, done: int, total: int | None) -> str:
        """Return the remaining time as `1:02:03` or `0:35`; empty if it is not known."""
        rate = self.rate(done)
        if total is None or rate is None:
            return ""
        minutes, seconds = divmod(round(max(0, total - done) / rate), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class PlainLines:
    """Writes a line every half minute, for logs; none for a short load."""

    def __init__(self, terminal: Terminal, clock: Clock = time.monotonic) -> None:
        self._terminal = terminal
        self._clock = clock
        self._speed = Speed(clock)
        self._next = clock() + PLAIN_SECONDS

    def update(self, progress: Progress) -> None:
        """Write a line if it is time for one."""
        if progress.stage == "loading":
            self._speed.add(progress.committed)
        if self._clock() >= self._next:
            self._next = self._clock() + PLAIN_SECONDS
            self._terminal.info(self._line(progress))

    def _line(self, progress: Progress) -> str:
        done, total = progress.committed, progress.total
        if progress.stage != "loading":
            return f"{_share(done, total)}: {_OTHER_STAGES[progress.stage]}"
        rate = self._speed.rate(done) or 0.0
        remaining = self._speed.remaining(done, total)
        left = f", {remaining} left" if remaining else ""
        return f"{_share(done, total)}, {rate:,.0f} rows/s{left}: {counts_line(progress.counts.as_json())}"

    def close(self) -> None:
        """Write nothing more; the summary follows."""


class Bars:
    """Shows a bar for each stage, with its rate and remaining time, and the counts, until `close`."""

    def __init__(self, terminal: Terminal, bars: Mapping[str, Bar]) -> None:
        self._bars = bars
        self._speeds = {name: Speed() for name in bars}
        self._progress: Progress | None = None
        self._closing = False
        self._frame = Frame(terminal, lambda _: self._lines(), stderr=True, refreshes=REFRESHES)

    def update(self, progress: Progress) -> None:
        """Move the bars."""
        began, self._progress = self._progress is not None, progress
        if progress.stage == "loading":
            for name, bar in self._bars.items():
                self._speeds[name].add(bar(progress)[0])
        if not began:  # from here on `close` restores the cursor, even if Ctrl-C arrives while the frame starts
            self._frame.__enter__()

    def close(self) -> None:
        """Restore the terminal."""
        if self._progress is not None and not self._closing:
            self._closing = True
            self._frame.__exit__()

    def _lines(self) -> Sequence[RenderableType]:
        """Return the bars, and below them, until the end, the counts or the current stage."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        progress = self._progress
        if progress is None:
            return ()
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        for _ in range(3):
            table.add_column(no_wrap=True, justify="right")
        for name, bar in self._bars.items():
            done, total = bar(progress)
            rate = self._speeds[name].rate(done)
            table.add_row(
                Text(name),
                # A bar without a total keeps moving, which would be wrong at the end.
                Text("") if total is None and self._closing else ProgressBar(total=total, completed=done),
                Text(f"{done:,}" if total is None else f"{done:,}/{total:,}", style="progress.download"),
                Text("" if rate is None else f"{rate:,.0f}/s", style="progress.data.speed"),
                Text(self._speeds[name].remaining(done, total), style="progress.remaining"),
            )
        if self._closing:
            return (table,)
        below = _OTHER_STAGES.get(progress.stage) or counts_line(progress.counts.as_json())
        return table, Text(below, style="dim", no_wrap=True, overflow="ellipsis")


def restore_cursor() -> None:
    """Show the cursor again; safe in a signal handler, where rich's locks may be held."""
    if sys.stderr.isatty():
        import os

        os.write(sys.stderr.fileno(), SHOW_CURSOR)


def _share(done: int, total: int | None) -> str:
    """Return how many rows are done, and the percentage."""
    if total is None:
        return f"{done:,} rows"
    percent = 100 * done // total if total else 100
    return f"{done:,} of {total:,} rows ({percent}%)"
