"""The timeline of a task: how far it was at which second, in a few points, for a chart."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from upsert_cli.atomic import make_folder, read_whole, replace_file
from upsert_cli.journal.file_access import reading_from, writing_to

MAX_POINTS = 200  # points of a timeline, about 30 KB; a chart 800 pixels wide shows no more
FIRST_SPACING = 0.25  # seconds between two points, doubled whenever there are too many


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """How far a task was at one moment."""

    attempt: int
    seconds: float
    """Since its attempt began."""

    read: int
    embedded: int
    written: int
    """Rows, over all attempts since the start."""

    busy: dict[str, float] = field(default_factory=dict)
    """Seconds that each stage has been busy in its attempt so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The points of a task since it was last read from the start, in order."""

    points: tuple[Point, ...] = ()
    spacing: float = FIRST_SPACING
    """Seconds between two points of one attempt, at least."""

    def is_due(self, *, attempt: int, seconds: float) -> bool:
        """Check whether a point at this moment would be far enough from the last one."""
        last = self.points[-1] if self.points else None
        return last is None or last.attempt != attempt or seconds - last.seconds >= self.spacing

    def with_point(self, point: Point) -> Timeline:
        """Return the timeline with one more point, thinned if there are too many; the last one always stays."""
        points, spacing = (*self.points, point), self.spacing
        if len(points) > MAX_POINTS:
            points, spacing = (*points[:-1:2], point), 2 * spacing
        return Timeline(points=points, spacing=spacing)

    def as_json(self) -> dict[str, Any]:
        """Return the timeline as plain data."""
        return {"spacing": self.spacing, "points": [asdict(point) for point in self.points]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Timeline:
        """Make a timeline from its JSON.

        Raises:
            ValueError: The value is not a timeline.
        """
        try:
            points = tuple(
                Point(
                    **{name: int(one[name]) for name in ("attempt", "read", "embedded", "written")},
                    seconds=float(one["seconds"]),
                    busy={str(name): float(seconds) for name, seconds in one["busy"].items()},
                )
                for one in value["points"]
            )
            return cls(points=points, spacing=float(value["spacing"]))
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a timeline: {type(error).__name__}: {error}") from error


def read_timeline(path: Path) -> Timeline:
    """Return the timeline in a file; an empty one if the file is missing or torn."""
    try:
        with reading_from(path):
            return Timeline.from_json(json.loads(read_whole(path)))
    except (FileNotFoundError, ValueError, RecursionError):
        return Timeline()


def write_timeline(path: Path, timeline: Timeline) -> None:
    """Replace the file of a timeline without forcing it to the disk, since a torn one reads as empty."""
    content = json.dumps(timeline.as_json(), separators=(",", ":")).encode("ascii")
    with writing_to(path):
        make_folder(path.parent)
        replace_file(path, content, durable=False)
