"""Computes a chart of a task's course: steps of speed, spans of work and the ticks of the time axis.

All positions are percentages of the chart's width or height, so that the page can draw it at any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from upsert_cli.journal.progress import Point, Timeline
from upsert_cli.text import duration

TIME_TICKS = 4  # the most steps on the time axis; more labels would overlap on a phone
MIN_WIDTH = 0.15  # percent; a narrower span would be invisible
STAGES = ("opening", "loading", "reading", "comparing", "embedding", "writing", "flushing")
"""The stages in the order in which an item passes them; other stages follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A stretch of time in which rows were committed at one speed."""

    left: float
    width: float
    height: float
    rate: float
    """Rows per second."""

    rows: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of time in which a stage was busy."""

    left: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A stage and the spans in which it was busy."""

    stage: str
    seconds: float
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark on the time axis."""

    left: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The chart of a task."""

    seconds: float
    """The duration of all attempts, without the time between them."""

    top: float
    """Rows per second at the top of the chart."""

    steps: tuple[Step, ...]
    lanes: tuple[Lane, ...]
    ticks: tuple[Tick, ...]
    restarts: tuple[float, ...]
    """The start of each attempt but the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    begin: float
    end: float
    rows: int = 0


def draw(course: Timeline) -> Chart | None:
    """Return the chart of a course, or None if too little is known to draw one."""
    attempts = [list(points) for _, points in groupby(course.points, key=lambda point: point.attempt)]
    starts = [sum(points[-1].seconds for points in attempts[:number]) for number in range(len(attempts))]
    total = sum(points[-1].seconds for points in attempts)
    timed = list(zip(starts, attempts, strict=True))
    committed = [stretch for start, points in timed for stretch in _committed(start, points)]
    if not committed or total <= 0.0:
        return None
    top = _rounded_up(max(_rate(stretch) for stretch in committed))
    return Chart(
        seconds=total,
        top=top,
        steps=tuple(_step(stretch, total=total, top=top) for stretch in committed),
        lanes=tuple(_lanes(timed, total)),
        ticks=tuple(_ticks(total)),
        restarts=tuple(100.0 * start / total for start in starts[1:]),
    )


def _committed(start: float, points: Sequence[Point]) -> Iterator[_Stretch]:
    """Yield the stretches between commits, which come a batch at a time."""
    last = points[0]
    for point in points[1:]:
        if point.written > last.written:
            yield _Stretch(begin=start + last.seconds, end=start + point.seconds, rows=point.written - last.written)
            last = point


def _rate(stretch: _Stretch) -> float:
    return stretch.rows / max(stretch.end - stretch.begin, 0.001)


def _step(stretch: _Stretch, *, total: float, top: float) -> Step:
    return Step(
        left=100.0 * stretch.begin / total,
        width=_width(stretch, total),
        height=100.0 * _rate(stretch) / top,
        rate=_rate(stretch),
        rows=stretch.rows,
        seconds=stretch.end - stretch.begin,
    )


def _lanes(timed: Sequence[tuple[float, Sequence[Point]]], total: float) -> Iterator[Lane]:
    names = {name for _, points in timed for name in points[-1].busy}
    for name in sorted(names, key=lambda name: (STAGES.index(name) if name in STAGES else len(STAGES), name)):
        seconds = sum(points[-1].busy.get(name, 0.0) for _, points in timed)
        if seconds <= 0.0:
            continue
        busy = [stretch for start, points in timed for stretch in _busy(start, points, name)]
        joined = _joined(busy, gap=total * MIN_WIDTH / 100.0)
        spans = (Span(left=100.0 * stretch.begin / total, width=_width(stretch, total)) for stretch in joined)
        yield Lane(stage=name, seconds=seconds, spans=tuple(spans))


def _width(stretch: _Stretch, total: float) -> float:
    return max(100.0 * (stretch.end - stretch.begin) / total, MIN_WIDTH)


def _busy(start: float, points: Sequence[Point], stage: str) -> Iterator[_Stretch]:
    """Yield when a stage was busy; its seconds are counted after the work, so the work lies before the point."""
    before = 0.0
    for point in points:
        spent = point.busy.get(stage, 0.0) - before
        if spent > 0.0:
            yield _Stretch(begin=start + max(0.0, point.seconds - spent), end=start + point.seconds)
        before = max(before, point.busy.get(stage, 0.0))


def _joined(stretches: Iterable[_Stretch], *, gap: float) -> Iterator[_Stretch]:
    held: _Stretch | None = None
    for stretch in sorted(stretches, key=lambda stretch: stretch.begin):
        if held is None:
            held = stretch
        elif stretch.begin <= held.end + gap:
            held = _Stretch(begin=held.begin, end=max(held.end, stretch.end))
        else:
            yield held
            held = stretch
    if held is not None:
        yield held


def _ticks(total: float) -> Iterator[Tick]:
    step = next(step for step in _time_steps() if total / step <= TIME_TICKS)
    for number in range(int(total / step) + 1):
        yield Tick(left=100.0 * number * step / total, label=duration(number * step))


def _time_steps() -> Iterator[float]:
    yield from (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600)
    hours = 2
    while True:
        yield hours * 3_600.0
        hours *= 2


def _rounded_up(rate: float) -> float:
    """Return the next number that consists of 1, 2, 3, 5 or 8 and zeros."""
    size = 10.0 ** math.floor(math.log10(rate))
    bounds = [size * first for first in (1, 2, 3, 5, 8, 10)]
    return next((high for low, high in pairwise([0.0, *bounds]) if low < rate <= high), bounds[-1])
