"""The rows to read, as one object that every reader takes: some sources, how to read them, and which of their rows.

A row that is not an item becomes a Reject and never costs its neighbours. Only a file that cannot be read any further
ends the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypeAlias

from upsert_cli.errors import SourceChanged, Stage
from upsert_cli.sources.item import START, Item, Position, Reject
from upsert_cli.sources.item_mapping import IdFrom, ItemMaker, item_maker
from upsert_cli.sources.source import Source
from upsert_cli.sources.units import Unit
from upsert_cli.sources.unreadable import not_loadable, unreadable

RowKey: TypeAlias = tuple[str, int]
"""`Item.source` and `Item.row`."""

RowStream: TypeAlias = Iterator[tuple[Item | Reject, Position]]
"""Rows in their order, each with the position after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of some files, from a position on; nothing is read before they are iterated."""

    sources: Sequence[Source]
    """Read one after the other, each up to its `end`."""

    id_field: str | None = None
    """Dotted path of the field that holds the id, in files that are not in item form."""

    id_from: IdFrom | None = None
    """How ids are made for rows without one."""

    start: Position = START
    """The rows before it are not read."""

    unit: Unit | None = None
    """The rows of this unit only, from `unit.start` on."""

    only: Iterable[RowKey] | None = None
    """The rows to yield, in the order of the sources; None for all. An iterator serves one reading."""

    refused: Set[RowKey] = frozenset()
    """Items to yield as rejects, since they are known not to be loadable."""

    def after(self, position: Position) -> Rows:
        """Return the rows after a position that came with one of these rows."""
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
            SourceChanged: A source ends before a row of `only`.
        """
        rows = self._from_start()
        if self.unit is not None:
            rows = _of_unit(rows, self.unit)
        if self.refused:
            rows = _refused(rows, self.refused)
        return rows if self.only is None else _chosen(rows, self.only)

    def probe(self) -> Iterator[tuple[object, Item | Reject]]:
        """Yield the value of each row and what becomes of it, up to where a source breaks off.

        The rows before a break are loaded, and loading them reports it.

        Raises:
            SourceUnreadable: The first file cannot be read at all.
        """
        any_row = False
        for source in self.sources:
            make = self._maker(source)
            try:
                for row, value, _, text in source.read():
                    any_row = True
                    yield value, make(value, row, text)
            except OSError as error:
                if any_row:
                    return
                raise not_loadable(source.name, error) from error

    def _from_start(self) -> RowStream:
        start = self.start
        for index in range(start.source, len(self.sources)):
            source = self.sources[index]
            _, row, begin = start if index == start.source else (index, 0, 0)
            make = self._maker(source)
            try:
                rows = source.read(row=row, offset=begin)
                for row, value, offset, text in rows:
                    yield make(value, row, text), Position(index, row, offset)
            except OSError as error:
                raise unreadable(source.name, error, row=row) from error

    def _maker(self, source: Source) -> ItemMaker:
        return item_maker(source, id_field=self.id_field, id_from=self.id_from)


def _of_unit(rows: RowStream, unit: Unit) -> RowStream:
    for row, after in rows:
        if after.source != unit.start.source or (unit.end is not None and after.row > unit.end):
            return
        if after.row > unit.after:
            yield row, after
        if after.row == unit.end:
            return


def _refused(rows: RowStream, refused: Set[RowKey]) -> RowStream:
    for row, after in rows:
        if isinstance(row, Item) and (row.source, row.row) in refused:
            yield Reject.of(row, stage=Stage.OTHER, detail="it was refused before"), after
        else:
            yield row, after


def _chosen(rows: RowStream, only: Iterable[RowKey]) -> RowStream:
    """Merge two streams that are in the same order, so that neither has to be in memory."""
    for source, number in only:
        for row, after in rows:
            if row.row == number and row.source == source:
                yield row, after
                break
        else:
            raise SourceChanged(name=source, how=f"it has no row {number} any more")
