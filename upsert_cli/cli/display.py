"""What people see of a running task: bars on a terminal, a line now and then in CI, nothing in a cron job."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from upsert_cli.cli.terminal import Terminal
from upsert_cli.cli.text import counts_line
from upsert_cli.loading.progress import Progress

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as RichProgress
    from rich.progress import Task as RichTask

PLAIN_SECONDS = 30.0  # seconds between two lines in a CI log
REFRESHES = 8  # a second; a terminal over ssh stays usable
STAGES = ("read", "embedded", "written")
SHOW_CURSOR = b"\x1b[?25h"


class Display(Protocol):
    """A way to show progress."""

    def update(self, progress: Progress) -> None:
        """Shows how far the task is; called often."""

    def close(self) -> None:
        """Leaves the last state on the screen and gives the line back."""


def open_display(terminal: Terminal, *, bars: Sequence[str] = STAGES) -> Display:
    """Returns the display that fits the terminal; `bars` are the stages of which something is known."""
    match terminal.progress_kind:
        case "bar":
            return Bars(terminal, bars)
        case "plain":
            return PlainLines(terminal)
    return Silence()


class Silence:
    """Shows nothing."""

    def update(self, progress: Progress) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Shows nothing."""


class PlainLines:
    """Writes a line every half a minute, for logs."""

    def __init__(self, terminal: Terminal) -> None:
        """The first line comes after `PLAIN_SECONDS`: a short load needs none."""
        self._terminal = terminal
        self._next = time.monotonic() + PLAIN_SECONDS

    def update(self, progress: Progress) -> None:
        """Writes a line when the time has come."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PLAIN_SECONDS
        total = f" of {progress.total:,}" if progress.total is not None else ""
        self._terminal.say(f"{progress.written:,}{total} rows: {counts_line(progress.counts.as_json())}")

    def close(self) -> None:
        """Leaves the last line as it is; the summary follows."""


class Bars:
    """A bar for each stage, with the rate, the remaining time and the counts."""

    def __init__(self, terminal: Terminal, stages: Sequence[str]) -> None:
        """Takes over the last lines of the terminal until `close`."""
        self._rich = _rich_bars(terminal)
        self._started = False
        self._stages = stages

    def update(self, progress: Progress) -> None:
        """Moves the bars."""
        if not self._started:
            self._ids = [
                self._rich.add_task(stage, total=progress.total, completed=getattr(progress, stage))
                for stage in self._stages
            ]
            self._started = True  # before it is true, or Ctrl-C in between would keep the cursor
            self._rich.start()
        for identifier, stage in zip(self._ids, self._stages, strict=True):
            self._rich.update(identifier, completed=getattr(progress, stage), total=progress.total, progress=progress)

    def close(self) -> None:
        """Gives the terminal back."""
        if self._started:
            self._rich.refresh()
            self._rich.stop()


def restore_cursor() -> None:
    """Shows the cursor again; fit for a signal handler, where rich's locks may be taken."""
    if sys.stderr.isatty():
        import os

        os.write(sys.stderr.fileno(), SHOW_CURSOR)


def _rich_bars(terminal: Terminal) -> RichProgress:
    from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Amount(ProgressColumn):
        """Rows of all rows."""

        def render(self, task: RichTask) -> Text:
            total = f"/{int(task.total):,}" if task.total is not None else ""
            return Text(f"{int(task.completed):,}{total}", style="progress.download", no_wrap=True)

    class Rate(ProgressColumn):
        """Rows a second, lately."""

        def render(self, task: RichTask) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed", no_wrap=True)

    class WithCounts(RichProgress):
        """The bars, and the counts below them."""

        def get_renderables(self) -> Iterable[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            progress = self.tasks[-1].fields.get("progress") if self.tasks else None
            yield Text(_below(progress), style="dim", no_wrap=True, overflow="ellipsis")

    return WithCounts(
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=None),
        Amount(),
        Rate(),
        TimeRemainingColumn(compact=True),
        console=terminal.console(stderr=True),
        refresh_per_second=REFRESHES,
        expand=True,
    )


def _below(progress: Any) -> str:
    if not isinstance(progress, Progress):
        return ""
    if progress.stage == "loading":
        return counts_line(progress.counts.as_json())
    return _STAGES[progress.stage]


_STAGES = {
    "starting": "opening the collection and the model",
    "searching": "looking for records that the sources no longer hold",
    "deleting": "deleting records that the sources no longer hold",
    "flushing": "writing the index to disk",
}
