"""Computes a chart of a task's course: steps of speed, lanes of work and the ticks of the time axis.

The page draws it at any size, since its positions are percentages of the width or height.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import TypeAlias

from upsert_cli.journal.progress import Point, Timeline

TIME_TICKS = 4  # the most steps on the time axis; more labels would overlap on a phone
MIN_WIDTH = 0.15  # percent; a narrower stretch would be invisible
SHORTEST = 0.001  # seconds, the resolution of a timeline
STAGES = ("opening", "loading", "reading", "comparing", "embedding", "writing", "flushing")
"""The stages in the order in which an item passes them; other stages follow."""

_Attempt: TypeAlias = tuple[float, Sequence[Point]]
"""The start of an attempt on the time axis, in seconds, and its points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A stretch of time in which rows were committed at one speed, or in which a stage was busy."""

    begin: float
    """Seconds from the start of the first attempt, without the time between attempts; so is `end`."""

    end: float
    rows: int = 0

    @property
    def seconds(self) -> float:
        """The duration."""
        return self.end - self.begin

    @property
    def rate(self) -> float:
        """Rows per second."""
        return self.rows / max(self.seconds, SHORTEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A stage and the stretches in which it was busy."""

    stage: str
    seconds: float
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The chart of a task."""

    seconds: float
    """The duration of all attempts, without the time between them."""

    top: float
    """Rows per second at the top of the chart."""

    steps: tuple[Stretch, ...]
    """The stretches in which rows were committed."""

    lanes: tuple[Lane, ...]
    ticks: tuple[float, ...]
    """Seconds, at the marks of the time axis."""

    restarts: tuple[float, ...]
    """Seconds, at the start of each attempt but the first."""

    def left(self, seconds: float) -> float:
        """Return the position of a moment, in percent of the width."""
        return 100.0 * seconds / self.seconds

    def width(self, stretch: Stretch) -> float:
        """Return the width of a stretch in percent."""
        return max(100.0 * stretch.seconds / self.seconds, MIN_WIDTH)

    def height(self, stretch: Stretch) -> float:
        """Return the height of a step in percent."""
        return 100.0 * stretch.rate / self.top


def draw(course: Timeline) -> Chart | None:
    """Return the chart of a course, or None if too little is known to draw one."""
    attempts, total = _attempts(course)
    steps = tuple(step for attempt in attempts for step in _steps(attempt))
    if not steps or total <= 0.0:
        return None
    tick = next(seconds for seconds in _time_steps() if total / seconds <= TIME_TICKS)
    return Chart(
        seconds=total,
        top=_rounded_up(max(step.rate for step in steps)),
        steps=steps,
        lanes=tuple(_lanes(attempts, total)),
        ticks=tuple(number * tick for number in range(int(total / tick) + 1)),
        restarts=tuple(start for start, _ in attempts[1:]),
    )


def _attempts(course: Timeline) -> tuple[Sequence[_Attempt], float]:
    """Return the attempts, each from the end of the one before, and the duration of all."""
    attempts: list[_Attempt] = []
    end = 0.0
    for _, points in groupby(course.points, key=lambda point: point.attempt):
        attempts.append((end, list(points)))
        end += attempts[-1][1][-1].seconds
    return attempts, end


def _steps(attempt: _Attempt) -> Iterator[Stretch]:
    """Yield the stretches between commits, which come a batch at a time."""
    start, points = attempt
    last = points[0]
    for point in points[1:]:
        if point.written > last.written:
            yield Stretch(begin=start + last.seconds, end=start + point.seconds, rows=point.written - last.written)
            last = point


def _lanes(attempts: Sequence[_Attempt], total: float) -> Iterator[Lane]:
    stages = {stage for _, points in attempts for stage in points[-1].busy}
    for stage in sorted(stages, key=_order):
        seconds = sum(points[-1].busy.get(stage, 0.0) for _, points in attempts)
        if seconds > 0.0:
            busy = [stretch for attempt in attempts for stretch in _busy(attempt, stage)]
            joined = _joined(busy, gap=total * MIN_WIDTH / 100.0)
            yield Lane(stage=stage, seconds=seconds, stretches=tuple(joined))


def _order(stage: str) -> tuple[int, str]:
    return (STAGES.index(stage) if stage in STAGES else len(STAGES)), stage


def _busy(attempt: _Attempt, stage: str) -> Iterator[Stretch]:
    """Yield when a stage was busy; its seconds are counted after the work, so the work lies before the point."""
    start, points = attempt
    before = 0.0
    for point in points:
        spent = point.busy.get(stage, 0.0) - before
        if spent > 0.0:
            yield Stretch(begin=start + max(0.0, point.seconds - spent), end=start + point.seconds)
        before = max(before, point.busy.get(stage, 0.0))


def _joined(stretches: Iterable[Stretch], *, gap: float) -> list[Stretch]:
    """Return the stretches in order, joined where no more than a gap is between them."""
    joined: list[Stretch] = []
    for stretch in sorted(stretches, key=lambda stretch: stretch.begin):
        begin, end = stretch.begin, stretch.end
        if joined and begin <= joined[-1].end + gap:
            last = joined.pop()
            begin, end = last.begin, max(last.end, end)
        joined.append(Stretch(begin=begin, end=end))
    return joined


def _time_steps() -> Iterator[float]:
    yield from (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800)
    yield from (3_600.0 * 2**doublings for doublings in count())


def _rounded_up(rate: float) -> float:
    """Return the next number that consists of 1, 2, 3, 5 or 8 and zeros."""
    size = 10.0 ** math.floor(math.log10(rate))
    bounds = [size * first for first in (1, 2, 3, 5, 8, 10)]
    return next((bound for bound in bounds if rate <= bound), bounds[-1])
