"""Units: the parts of files that workers load, each by itself.

A unit has the role of a batch on many machines, but is larger, since dispatching it costs more than a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from upsert_cli.sources.formats import format_named
from upsert_cli.sources.item import Position
from upsert_cli.sources.source import Source
from upsert_cli.sources.unreadable import unreadable

UNIT_ROWS = 4_096  # rows; 80 s of a processor's embedding, compared with which dispatching (some ms) is nothing
UNIT_SIZE = 16 << 20  # bytes of a file; few enough that a unit's rejects fit into a message
DIGEST_CHARACTERS = 16  # of a file's digest; enough to tell the files of one task apart
OPEN_ROWS = 2_048  # rows of the first half of a unit whose end is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A run of rows of one source."""

    digest: str
    """Of the source: a file that changed has other units."""

    start: Position
    """Where reading begins."""

    after: int
    """Rows up to this one are not part of the unit; in the second half of a unit, more than `start.row`."""

    end: int | None
    """The last row, or None for the last row of the file."""

    only: tuple[int, ...] | None = None
    """The rows to load, in their order, or None for all of them."""

    @property
    def id(self) -> str:
        """Stable as long as the file is the same, such as `0:9f86d081884c7d65:4096-8192`."""
        return f"{self.start.source}:{self.digest}:{self.after}-{'' if self.end is None else self.end}"

    def has(self, row: int) -> bool:
        """Tell whether a row of the unit's source belongs to the unit."""
        return row > self.after and (self.end is None or row <= self.end)

    def rest_from(self, position: Position) -> Unit:
        """Return the rest of the unit after a position in it."""
        return replace(self, start=position, after=position.row)

    def halves(self) -> tuple[Unit, Unit] | None:
        """Return two units with the same rows, or None if there is only one row."""
        if self.end is None:
            # Twice as far each time, so that a distant row is reached soon.
            middle = self.after + max(OPEN_ROWS, self.after - self.start.row)
        else:
            middle = (self.after + self.end) // 2
        if middle == self.after:
            return None
        return replace(self, end=middle), replace(self, after=middle)

    def as_json(self) -> dict[str, Any]:
        """Return the unit as plain data."""
        return asdict(self) | {"start": self.start.as_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Unit:
        """Read what `as_json` wrote."""
        only = value["only"]
        return cls(
            digest=value["digest"],
            start=Position.from_json(value["start"]),
            after=value["after"],
            end=value["end"],
            only=None if only is None else tuple(only),
        )


def plan_units(sources: Sequence[Source], *, rows: int = UNIT_ROWS, size: int = UNIT_SIZE) -> Iterator[Unit]:
    """Yield the units of `sources` in their order; text files are only searched for ends of rows.

    Args:
        sources: The files to load.
        rows: The most rows of a unit.
        size: The most bytes of a unit, except for a single row that is larger.

    Raises:
        SourceUnreadable: A file cannot be read.
    """
    for index, source in enumerate(sources):
        digest = source.fingerprint.digest[:DIGEST_CHARACTERS]
        boundaries = format_named(source.format).boundaries(source.path, rows=rows, size=size)
        begin = Position(index, 0, 0)
        if boundaries is None:
            yield Unit(digest=digest, start=begin, after=0, end=None)
            continue
        try:
            for boundary, offset in boundaries:
                row = boundary if source.end is None else min(boundary, source.end)
                yield Unit(digest=digest, start=begin, after=begin.row, end=row)
                if row == source.end:
                    break
                begin = Position(index, row, offset)
        except OSError as error:
            raise unreadable(source.name, error, row=begin.row) from error
