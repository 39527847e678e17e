"""The rows to read, as one object: the sources, the options of reading them, and the choice of rows.

A row that is not an item becomes a reject and never costs its neighbours. Only a file that cannot be read any further
ends the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

from upsert_cli.errors import Stage
from upsert_cli.sources.item import START, Item, Position, Reject
from upsert_cli.sources.item_mapping import IdFrom, ItemMaker, item_maker
from upsert_cli.sources.source import Source
from upsert_cli.sources.source_faults import not_loadable, source_changed, unreadable

UNIT_ROWS = 4_096  # rows; a processor embeds them in 80 s, against some ms for dispatching the unit
UNIT_SIZE = 16 << 20  # bytes of a file; few enough that a unit's rejects fit into a message
DIGEST_CHARACTERS = 16  # of a file's digest; enough to distinguish the files of a task
OPEN_ROWS = 2_048  # rows of the first half of a unit whose end is not known

RowKey: TypeAlias = tuple[str, int]
"""`Item.source` and `Item.row`."""

RowStream: TypeAlias = Iterator[tuple[Item | Reject, Position]]
"""Rows in their order, each with the position after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A run of rows of one source."""

    digest: str
    """The digest of the source: a file that changed has other units."""

    start: Position
    """The position from which the rows are read."""

    after: int
    """The last row before the unit; in the second half of a divided unit, more than `start.row`."""

    end: int | None
    """The last row, or None for the last row of the file."""

    only: tuple[int, ...] | None = None
    """The rows to load, in their order, or None for all of them."""

    @property
    def id(self) -> str:
        """Return an id that is stable as long as the file is the same, such as `0:9f86d081884c7d65:4096-8192`."""
        return f"{self.start.source}:{self.digest}:{self.after}-{'' if self.end is None else self.end}"

    def has(self, row: int) -> bool:
        """Check whether a row of the unit's source belongs to the unit."""
        return row > self.after and (self.end is None or row <= self.end)

    def rest_from(self, position: Position) -> Unit:
        """Return the rest of the unit after a position in it."""
        return replace(self, start=position, after=position.row)

    def halves(self) -> tuple[Unit, Unit] | None:
        """Return two units with the same rows, or None if there is only one row."""
        if self.end is None:
            # Twice as far each time, so that a few divisions reach a distant row.
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
        """Return the unit that `as_json` wrote."""
        start, only = Position.from_json(value["start"]), value["only"]
        return cls(**value | {"start": start, "only": None if only is None else tuple(only)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of some files, from a position on; nothing is read before they are iterated."""

    sources: Sequence[Source]
    """Read one after the other, each up to its `end`."""

    id_field: str | None = None
    """Dotted path of the field that holds the id, in files that are not in item form."""

    id_from: IdFrom | None = None
    """The origin of ids for rows without an id."""

    start: Position = START
    """The position from which the rows are read."""

    unit: Unit | None = None
    """The unit to read, from `unit.start` on; None for all rows."""

    only: Iterable[RowKey] | None = None
    """The rows to yield, in the order of the sources; None for all. An iterator serves one reading."""

    refused: Set[RowKey] = frozenset()
    """Items to yield as rejects, since an earlier attempt refused them."""

    def after(self, position: Position) -> Rows:
        """Return the rows after a position, which came with one of these rows."""
        return replace(self, start=position)

    def of(self, unit: Unit) -> Rows:
        """Return the rows of a unit."""
        name = self.sources[unit.start.source].name
        only = None if unit.only is None else [(name, row) for row in unit.only if unit.has(row)]
        return replace(self, start=unit.start, unit=unit, only=only)

    def all(self) -> Rows:
        """Return every row of the sources, read in the same way."""
        return replace(self, start=START, unit=None, only=None)

    def __iter__(self) -> RowStream:
        """Yield the rows, each with the position after it.

        Raises:
            SourceUnreadable: A file is gone, broke off, or cannot be read any further.
            Refusal: A source ends before a row of `only`.
        """
        rows = self._from_start()
        if self.unit is not None:
            rows = _of_unit(rows, self.unit)
        if self.refused:
            rows = _refused(rows, self.refused)
        return rows if self.only is None else _chosen(rows, self.only)

    def probe(self) -> Iterator[tuple[object, Item | Reject]]:
        """Yield the value and the item or reject of each row, up to the point where a source breaks off.

        A load reads the rows before that point, and then reports the break.

        Raises:
            UsageFault: The first file has to be loaded in another way.
            SourceUnreadable: The first file cannot be read at all.
        """
        any_row = False
        for source in self.sources:
            make = self._maker(source)
            try:
                for row in source.read():
                    any_row = True
                    yield row.value, make(row)
            except OSError as error:
                if any_row:
                    return
                raise not_loadable(source.name, source.format, error) from error

    def _from_start(self) -> RowStream:
        start = self.start
        for index in range(start.source, len(self.sources)):
            source = self.sources[index]
            _, row, begin = start if index == start.source else (index, 0, 0)
            make = self._maker(source)
            try:
                for each in source.read(row=row, offset=begin):
                    row = each.number
                    yield make(each), Position(index, row, each.offset)
            except OSError as error:
                raise unreadable(source.name, source.format, error, row=row) from error

    def _maker(self, source: Source) -> ItemMaker:
        return item_maker(source, id_field=self.id_field, id_from=self.id_from)


def _of_unit(rows: RowStream, unit: Unit) -> RowStream:
    """Yield the rows of a unit, from rows that begin at or before its first one."""
    for row, after in rows:
        if after.source != unit.start.source or (unit.end is not None and after.row > unit.end):
            return
        if after.row > unit.after:
            yield row, after
        if after.row == unit.end:
            return


def _refused(rows: RowStream, refused: Set[RowKey]) -> RowStream:
    """Yield the rows, with rejects in place of the items that were refused before."""
    for row, after in rows:
        if isinstance(row, Item) and (row.source, row.row) in refused:
            yield Reject.of(row, stage=Stage.OTHER, detail="it was refused before"), after
        else:
            yield row, after


def _chosen(rows: RowStream, only: Iterable[RowKey]) -> RowStream:
    """Yield the chosen rows of two streams in the same order, neither of which has to be in memory."""
    for source, number in only:
        for row, after in rows:
            if row.row == number and row.source == source:
                yield row, after
                break
        else:
            raise source_changed(source, f"it has no row {number} any more")


def plan_units(sources: Sequence[Source], *, rows: int = UNIT_ROWS, size: int = UNIT_SIZE) -> Iterator[Unit]:
    """Yield the units of sources in their order; text files are only searched for the ends of rows.

    A unit has at most `rows` rows and `size` bytes, unless a single row is larger.

    Raises:
        SourceUnreadable: A file cannot be read.
    """
    for index, source in enumerate(sources):
        digest = source.fingerprint.digest[:DIGEST_CHARACTERS]
        boundaries = source.reader.boundaries(rows=rows, size=size)
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
            raise unreadable(source.name, source.format, error, row=begin.row) from error
