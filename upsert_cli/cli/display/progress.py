"""The progress of a running task: bars on a terminal, a line now and then in a log, nothing in a cron job."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from upsert_cli.cli.display.remaining_time import Clock, RemainingTime, as_clock
from upsert_cli.cli.display.terminal import Frame, Terminal
from upsert_cli.context import Progress
from upsert_cli.text import counts_line

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from upsert_cli.journal.task import Task

PLAIN_SECONDS = 30.0  # seconds between two lines in a log
REFRESHES = 8.0  # per second; a terminal over ssh stays usable
BAR_CELLS = 50  # cells of the longest bar, however wide the terminal is
LEAST_BAR_CELLS = 8
UNKNOWN_TOTAL = 9_999_999  # rows; keeps room for the amounts until the total is known
RUNNING = "cyan"  # green is for finished work
SPINNER, PLAIN_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"
SPINS = 10.0  # steps of the spinner per second

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


class Display:
    """A display that shows nothing, and the interface of the others."""

    def update(self, progress: Progress) -> None:
        """Show the progress; called often."""

    def close(self) -> None:
        """Leave the last state on the screen and restore the terminal."""


def open_display(terminal: Terminal, *, bars: Mapping[str, Bar] = STAGE_BARS, prints_data: bool = False) -> Display:
    """Return the display that fits the terminal.

    Args:
        terminal: The terminal to show progress on.
        bars: The bars by their names.
        prints_data: Whether data is printed while the display is open; on the same terminal, it rules out bars.
    """
    match terminal.progress_kind:
        case "bar" if not (prints_data and sys.stdout.isatty()):
            return Bars(terminal, bars)
        case "plain":
            return PlainLines(terminal)
    return Display()


def progress_of(task: Task, *, began: float) -> Progress:
    """Return the progress of a task that another process runs and that began at a monotonic time."""
    return Progress(total=task.total, committed=task.rows, counts=task.counts, stage="loading", began=began)


class PlainLines(Display):
    """Writes a line every half minute, for logs; none for a short load."""

    def __init__(self, terminal: Terminal, clock: Clock = time.monotonic) -> None:
        self._terminal = terminal
        self._clock = clock
        self._time = RemainingTime(clock)
        self._next = clock() + PLAIN_SECONDS

    def update(self, progress: Progress) -> None:
        """Write a line if it is time for one."""
        if progress.stage == "loading":
            self._time.update(progress.committed, progress.total)
        if self._clock() >= self._next:
            self._next = self._clock() + PLAIN_SECONDS
            self._terminal.info(self._line(progress))

    def _line(self, progress: Progress) -> str:
        done, total = progress.committed, progress.total
        share = f"{done:,} rows" if total is None else f"{done:,} of {total:,} rows ({_percent(done, total)})"
        if progress.stage != "loading":
            return f"{share}: {_OTHER_STAGES[progress.stage]}"
        return f"{', '.join((share, *_pace(self._time)))}: {counts_line(progress.counts.as_json())}"


class Bars(Display):
    """Shows a bar for each stage, the current step with the remaining time, and the counts, until `close`."""

    def __init__(self, terminal: Terminal, bars: Mapping[str, Bar], clock: Clock = time.monotonic) -> None:
        self._bars = bars
        self._clock = clock
        self._time = RemainingTime(clock)
        self._progress: Progress | None = None
        self._amount_cells = 0
        self._closing = False
        self._marks = SPINNER if "utf" in (sys.stderr.encoding or "").lower() else PLAIN_SPINNER
        self._frame = Frame(terminal, self.lines, stderr=True, refreshes=REFRESHES)

    def update(self, progress: Progress) -> None:
        """Move the bars."""
        is_first = self._progress is None
        self._progress = progress
        if progress.stage == "loading":
            self._time.update(progress.committed, progress.total)
        if is_first:
            largest = f"{UNKNOWN_TOTAL if progress.total is None else progress.total:,}"
            self._amount_cells = len(f"{largest}/{largest}")
            # From here on `close` restores the cursor, even if Ctrl-C arrives while the frame starts.
            self._frame.__enter__()

    def close(self) -> None:
        """Restore the terminal."""
        if self._progress is not None and not self._closing:
            self._closing = True
            self._frame.__exit__()

    def lines(self, width: int) -> Sequence[Table | Text]:
        """Return the bars, and below them, until the end, the current step and the counts."""
        progress = self._progress
        if progress is None:
            return ()
        bars = self._bar_lines(progress, width)
        if self._closing:
            return (bars,)
        counts = (_counts(progress),) if progress.counts.read else ()
        return bars, self._step_line(progress), *counts

    def _bar_lines(self, progress: Progress, width: int) -> Table:
        """Return the bars, whose width depends on nothing that changes during a load."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        names = max(map(len, self._bars))
        cells = max(LEAST_BAR_CELLS, min(BAR_CELLS, width - names - self._amount_cells - 2))
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True, min_width=names)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, min_width=self._amount_cells, justify="right")
        for name, bar in self._bars.items():
            done, total = bar(progress)
            # A bar without a total keeps moving, which would be wrong at the end; one of zero rows would look full.
            shown = ProgressBar(
                total=None if total is None else max(1, total),
                completed=done,
                width=cells,
                complete_style=RUNNING,
                finished_style=RUNNING,
                pulse_style=RUNNING,
            )
            amount = f"{done:,}" if total is None else f"{done:,}/{total:,}"
            table.add_row(Text(name), Text("") if total is None and self._closing else shown, Text(amount))
        return table

    def _step_line(self, progress: Progress) -> Text:
        """Return a moving mark, the current step, and how long it has taken and will take."""
        from rich.text import Text

        elapsed = f"{as_clock(self._clock() - progress.began)} elapsed"
        if progress.stage != "loading":
            step = f"{_OTHER_STAGES[progress.stage]}, {elapsed}"
        elif "loading" in progress.busy_now:
            step = f"loading the model, {elapsed}"
        else:
            done, total = progress.committed, progress.total
            share = f"{done:,} rows" if total is None else _percent(done, total)
            step = ", ".join((share, elapsed, *_pace(self._time)))
        mark = self._marks[int(self._clock() * SPINS) % len(self._marks)]
        return Text.assemble((mark, RUNNING), f" {step}", no_wrap=True, overflow="ellipsis")


def _pace(left: RemainingTime) -> tuple[str, ...]:
    """Return the rate and the remaining time, as far as they are known."""
    rate = () if left.rate is None else (f"{left.rate:,.0f} rows/s",)
    return rate if left.seconds is None else (*rate, f"{as_clock(left.seconds)} left")


def _percent(done: int, total: int) -> str:
    return f"{100 * done // total if total else 100}%"


def _counts(progress: Progress) -> Text:
    from rich.text import Text

    line = Text(f"  {counts_line(progress.counts.as_json())}", style="dim", no_wrap=True, overflow="ellipsis")
    if progress.counts.failed:
        line.highlight_words([f"{progress.counts.failed:,} rejected"], style="yellow")
    return line
