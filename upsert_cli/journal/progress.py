"""The progress of a task: its checkpoint and its timeline, each in a file that is replaced while the task runs.

Neither file is forced to the disk, so a power failure may leave anything in them.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from upsert_cli.atomic import make_folder, read_whole, replace_file
from upsert_cli.context import Progress
from upsert_cli.counts import Converted, Counts
from upsert_cli.errors import JournalUnreadable, JournalUnwritable
from upsert_cli.journal.files import read_json, reading_from, write_json, writing_to

MAX_POINTS = 200  # points of a timeline, about 30 KB; a chart of 800 pixels shows no more
FIRST_SPACING = 0.25  # seconds between two points; doubled whenever there are too many points
SAVE_SECONDS = 5.0  # seconds between two saves of a timeline, which a crash may cost


def known_fields(cls: type[Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of plain data that are fields of a dataclass, without those that a newer version wrote."""
    names = cls.__dataclass_fields__  # `fields` would make a tuple for each of 100,000 records
    return {name: value[name] for name in value if name in names}


# -- the checkpoint ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The position up to which every row is committed."""

    position: dict[str, Any]
    """Where to continue to read; the journal does not interpret it."""

    rows: int = 0
    counts: Counts = field(default_factory=Counts)
    converted: Converted = field(default_factory=Converted)
    seconds: float = 0.0
    """The task's `load_seconds` up to here."""

    rejects_bytes: int = 0
    """Length of the rejects file; later rejects are of rows that will be read again."""

    retried: int | None = None
    """Committed rows of the retry file, in a retry of rejects; None in an attempt that reads all rows."""

    missing: int | None = None
    """Records on the list to delete at the end; None before there is a list."""

    unlisted: int = 0
    """Records at the beginning of that list that were deleted, or kept since they had changed."""

    saved_at: str | None = field(default=None, compare=False)
    """UTC; None in a checkpoint of an older version, and before it is saved."""

    @property
    def fields_of_task(self) -> dict[str, Any]:
        """The same progress as fields of a task."""
        return {
            "rows": self.rows,
            "counts": self.counts,
            "converted": self.converted,
            "load_seconds": self.seconds,
        }


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Return the checkpoint in a progress file; None if the file is missing or torn."""
    try:
        with reading_from(path):
            checksum, _, text = read_whole(path).partition(b" ")
        if checksum != _checksum(text):
            return None
        value = json.loads(text)
        parsed = {"counts": Counts.from_json(value["counts"]), "converted": Converted.from_json(value)}
        return Checkpoint(**known_fields(Checkpoint, value) | parsed)
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace a progress file."""
    text = json.dumps(asdict(checkpoint) | checkpoint.converted.as_json()).encode("ascii")
    with writing_to(path):
        replace_file(path, _checksum(text) + b" " + text, durable=False)


def _checksum(text: bytes) -> bytes:
    # A CRC is enough for a torn file; nobody attacks it.
    return b"%08x" % zlib.crc32(text)


# -- the timeline ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The progress of a task at one moment."""

    attempt: int
    seconds: float
    """Seconds since the attempt began."""

    read: int
    embedded: int
    written: int
    """Rows, over all attempts since the start."""

    busy: dict[str, float] = field(default_factory=dict)
    """Seconds that each stage has been busy in this attempt so far."""


@dataclass(slots=True, kw_only=True)
class Timeline:
    """The points of a task since its sources were last read from the start, in order, for a chart."""

    points: list[Point] = field(default_factory=list)
    spacing: float = FIRST_SPACING
    """The least seconds between two points of one attempt."""

    def add(self, point: Point, *, is_last: bool = False) -> bool:
        """Add a point, unless it is too near to the previous one; return whether it was added.

        The last point of an attempt is always added. Every other point is dropped once there are too many.
        """
        if not is_last and self.points and self._is_near(self.points[-1], point):
            return False
        self.points.append(point)
        if len(self.points) > MAX_POINTS:
            self.points = [*self.points[:-1:2], point]
            self.spacing *= 2
        return True

    def _is_near(self, before: Point, point: Point) -> bool:
        return before.attempt == point.attempt and point.seconds - before.seconds < self.spacing


def read_timeline(path: Path) -> Timeline:
    """Return the timeline in a file; an empty one if the file is missing or torn."""
    value = read_json(path)
    try:
        return Timeline(points=[Point(**point) for point in value["points"]], spacing=value["spacing"])
    except (KeyError, TypeError):
        return Timeline()


def write_timeline(path: Path, timeline: Timeline) -> None:
    """Replace the file of a timeline."""
    with writing_to(path):
        make_folder(path.parent)
    write_json(path, asdict(timeline), durable=False)


class TimelineRecorder:
    """A recorder of one attempt's timeline; if the file cannot be written, the load continues without a timeline."""

    def __init__(self, path: Path, attempt: int) -> None:
        """Begin the attempt now; the file is read when the first point is added."""
        self._path = path
        self._attempt = attempt
        self._began = time.monotonic()
        self._next_save = self._began + SAVE_SECONDS
        self._timeline: Timeline | None = None
        self._is_lost = False

    def add(self, progress: Progress, *, is_last: bool = False) -> str | None:
        """Record the progress if a point is due; return a warning if the timeline cannot be written any more."""
        if self._is_lost or (is_last and self._timeline is None):
            return None
        if self._timeline is None:
            # Without committed rows, the sources are read from their start again.
            self._timeline = self._of_earlier_attempts() if progress.committed else Timeline()
        now = time.monotonic()
        point = Point(
            attempt=self._attempt,
            seconds=round(now - self._began, 3),
            read=progress.read,
            embedded=progress.embedding_passed,
            written=progress.committed,
            # A copy at once, since the threads of the stages may add a name.
            busy={name: round(busy, 3) for name, busy in progress.seconds.copy().items()},
        )
        if not self._timeline.add(point, is_last=is_last):
            return None
        if not is_last and now < self._next_save:
            return None
        self._next_save = now + SAVE_SECONDS
        try:
            write_timeline(self._path, self._timeline)
        except JournalUnwritable as error:
            self._is_lost = True
            return f"the progress of the load is not kept, so a report of it will have no chart: {error}"
        return None

    def _of_earlier_attempts(self) -> Timeline:
        with suppress(JournalUnreadable):  # the chart lacks its beginning then
            return read_timeline(self._path)
        return Timeline()
