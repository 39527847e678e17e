"""The course of a task -> what a chart of it consists of: steps of speed, spans of work, and the ticks of its axes.

Everything is in percent of the chart's width or height, so that the page may draw it at any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from upsert_cli.journal.timeline import Point, Timeline

TIME_TICKS = 4  # at most so many steps along the time axis; more would run into each other on a phone
MIN_WIDTH = 0.15  # percent; a shorter span would not be seen
TENTH = 0.1  # seconds; of less, the first digit that is not 0 is shown
TENTHS_MATTER = 10  # seconds from which on whole ones are shown
STAGES = ("opening", "loading", "reading", "comparing", "embedding", "writing", "flushing")
"""The stages in the order in which an item passes them; any other comes after these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A stretch of time in which rows were settled at one speed."""

    left: float
    width: float
    height: float
    rate: float
    """Rows a second."""

    rows: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of time in which a stage was busy."""

    left: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One stage, and when it was busy."""

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
    """How a task went."""

    seconds: float
    """All attempts, one after the other, without the time between them."""

    top: float
    """Rows a second at the top of the chart."""

    steps: tuple[Step, ...]
    lanes: tuple[Lane, ...]
    ticks: tuple[Tick, ...]
    restarts: tuple[float, ...]
    """Where each attempt but the first began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretch:
    begin: float
    end: float
    rows: int = 0


def draw(course: Timeline) -> Chart | None:
    """Returns the chart of a course, or None where too little is known to draw one."""
    attempts = [list(points) for _, points in groupby(course.points, key=lambda point: point.attempt)]
    starts = [sum(points[-1].seconds for points in attempts[:number]) for number in range(len(attempts))]
    total = sum(points[-1].seconds for points in attempts)
    timed = list(zip(starts, attempts, strict=True))
    settled = [stretch for start, points in timed for stretch in _settled(start, points)]
    if not settled or total <= 0.0:
        return None
    top = _rounded_up(max(_rate(stretch) for stretch in settled))
    return Chart(
        seconds=total,
        top=top,
        steps=tuple(_step(stretch, total=total, top=top) for stretch in settled),
        lanes=tuple(_lanes(timed, total)),
        ticks=tuple(_ticks(total)),
        restarts=tuple(100.0 * start / total for start in starts[1:]),
    )


def in_words(seconds: float) -> str:
    """Returns a length of time as a person says it: `0.8 s`, `2 min 5 s`, `1 h 20 min`."""
    if 0.0 < seconds < TENTH:
        return f"{seconds:.1g} s"
    if seconds < TENTHS_MATTER:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    parts = [(hours, "h"), (minutes, "min"), (rest if not hours else 0, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def _settled(start: float, points: Sequence[Point]) -> Iterator[_Stretch]:
    """Yields the stretches between the moments at which rows were settled; they are settled a batch at a time."""
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
        width=max(100.0 * (stretch.end - stretch.begin) / total, MIN_WIDTH),
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
        spans = (
            Span(
                left=100.0 * stretch.begin / total,
                width=max(100.0 * (stretch.end - stretch.begin) / total, MIN_WIDTH),
            )
            for stretch in _joined(busy, gap=total * MIN_WIDTH / 100.0)
        )
        yield Lane(stage=name, seconds=seconds, spans=tuple(spans))


def _busy(start: float, points: Sequence[Point], stage: str) -> Iterator[_Stretch]:
    """Yields when a stage was busy: its seconds are counted at the end of each piece of work, so that lies before."""
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
        yield Tick(left=100.0 * number * step / total, label=in_words(number * step))


def _time_steps() -> Iterator[float]:
    yield from (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600)
    hours = 2
    while True:
        yield hours * 3_600.0
        hours *= 2


def _rounded_up(rate: float) -> float:
    """Returns the next number that begins with 1, 2, 3, 5 or 8 and goes on with zeros."""
    size = 10.0 ** math.floor(math.log10(rate))
    bounds = [size * first for first in (1, 2, 3, 5, 8, 10)]
    return next((high for low, high in pairwise([0.0, *bounds]) if low < rate <= high), bounds[-1])
