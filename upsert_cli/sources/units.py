"""Sources -> Unit: a part of a file that is loaded by itself, by whoever is free, and whose end is written down.

A unit is to many machines what a batch is to one, only larger: handing it out costs more than a checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from upsert_cli.sources.formats import FORMATS, unreadable
from upsert_cli.sources.item import Position
from upsert_cli.sources.source import Source

UNIT_ROWS = 4_096  # rows; 80 s of a processor's embedding, beside which handing it out (some ms) is nothing
UNIT_SIZE = 16 << 20  # bytes of a file; so many that a unit's rejects fit into a message
DIGEST_CHARACTERS = 16  # of the file's digest, which has to tell the files of one task apart
OPEN_ROWS = 2_048  # rows of the first half of a unit of which nobody knows the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A run of rows of one source."""

    digest: str
    """Of the source: a unit of a file that changed is another unit."""

    start: Position
    """Where reading begins."""

    after: int
    """Rows up to this one are passed over; in a part of a unit that was halved, others than `start.row`."""

    end: int | None
    """The last row; None: that of the file."""

    only: tuple[int, ...] | None = None
    """The rows to load, in their order; None: all of them."""

    @property
    def id(self) -> str:
        """The same one whenever the same file is planned: `0:9f86d081884c7d65:4096-8192`."""
        return f"{self.start.source}:{self.digest}:{self.after}-{'' if self.end is None else self.end}"

    def has(self, row: int) -> bool:
        """Tell whether a row of the unit's source belongs to the unit."""
        return row > self.after and (self.end is None or row <= self.end)

    def rest_from(self, position: Position) -> Unit:
        """Returns what is left of the unit from a position in it on."""
        return replace(self, start=position, after=position.row)

    def halves(self) -> tuple[Unit, Unit] | None:
        """Returns two units with the same rows; None where there is just one row."""
        if self.end is None:
            # Twice as far each time, so that a row far behind is reached soon.
            middle = self.after + max(OPEN_ROWS, self.after - self.start.row)
        else:
            middle = (self.after + self.end) // 2
        if middle == self.after:
            return None
        return replace(self, end=middle), replace(self, after=middle)

    def as_json(self) -> dict[str, Any]:
        """Returns the unit as plain data."""
        return asdict(self) | {"start": self.start.as_json()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Unit:
        """Reads what `as_json` wrote."""
        only = value["only"]
        return cls(
            digest=value["digest"],
            start=Position.from_json(value["start"]),
            after=value["after"],
            end=value["end"],
            only=None if only is None else tuple(only),
        )


def plan_units(sources: Sequence[Source], *, rows: int = UNIT_ROWS, size: int = UNIT_SIZE) -> Iterator[Unit]:
    """Yields the units of `sources` in their order; looks through text files for the ends of lines, no more.

    Args:
        sources: What is to be loaded.
        rows: Rows of a unit at most.
        size: Bytes of a unit, but for a row that alone has more.

    Raises:
        SourceUnreadable: A file cannot be read.
    """
    for index, source in enumerate(sources):
        digest = source.fingerprint.digest[:DIGEST_CHARACTERS]
        cut = FORMATS[source.format].cut
        begin = Position(index, 0, 0)
        if cut is None:
            yield Unit(digest=digest, start=begin, after=0, end=None)
            continue
        try:
            for row, offset in cut(source.path, rows=rows, size=size):
                yield Unit(digest=digest, start=begin, after=begin.row, end=row)
                begin = Position(index, row, offset)
        except OSError as error:
            raise unreadable(source.name, error, row=begin.row) from error
