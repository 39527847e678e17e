"""The records of a collection page by page, from its tables or through a store, and the items of its chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import TYPE_CHECKING, Any

from upsert_cli.documents.hashing import HASH_KEY, OBJECT_KEY, owner_of
from upsert_cli.documents.stored_items import joined
from upsert_cli.sources.item import Item
from upsert_cli.store.base import Record
from upsert_cli.store.process import StoreProcess

if TYPE_CHECKING:
    from upsert_cli.store.chroma.tables import RecordTables

JOINED_ITEMS = 64  # items whose chunks are read at once
PAGE_ROWS = 1_000  # records read at once: 1.5 MB of vectors with 384 numbers


def numbered_pages(tables: RecordTables, number: int) -> Iterator[list[Record]]:
    """Yield the pages after a number of the tables."""
    while page := tables.after(number, rows=PAGE_ROWS):
        yield page
        number = page[-1].number


def counted_pages(store: StoreProcess | None, row: int, *, where: dict[str, Any] | None) -> Iterator[list[Record]]:
    """Yield the pages after a number of records; these have no numbers of their own."""
    while store is not None and (page := store.fetch(start=row, rows=PAGE_ROWS, where=where)):
        yield page
        row += len(page)


class JoinedChunks:
    """The chunks in the pages, and the items that they are joined to: in place of an item's first chunk."""

    def __init__(self, tables: RecordTables | None, store: StoreProcess | None, *, is_wanted: bool) -> None:
        """Read from the tables, or through a store; join nothing unless that is wanted."""
        self._tables = tables
        self._store = store
        self._is_wanted = is_wanted
        self._joined: dict[str, Item | None] = {}
        """By the items of the page and of the one before; None where they are not joined."""

    def join(self, page: Sequence[Record]) -> dict[str, Item | None]:
        """Return, by the ids of joined chunks in a page, the item in place of the first one; None for the others."""
        if not self._is_wanted:
            return {}
        chunks = {record.id: chunk for record in page if (chunk := _chunk_of(record)) is not None}
        owners = {owner for owner, _ in chunks.values()}
        known = {owner: self._joined[owner] for owner in owners & self._joined.keys()}
        self._joined = known | {owner: joined(owner, parts) for owner, parts in self._chunks_of(owners - known.keys())}
        return {
            one: None if number else item
            for one, (owner, number) in chunks.items()
            if (item := self._joined[owner]) is not None
        }

    def _chunks_of(self, owners: Set[str]) -> Iterator[tuple[str, list[tuple[int, str | None, dict[str, Any]]]]]:
        for start in range(0, len(owners), JOINED_ITEMS):
            some = sorted(owners)[start : start + JOINED_ITEMS]
            found: dict[str, list[tuple[int, str | None, dict[str, Any]]]] = {owner: [] for owner in some}
            for record in self._records_of(some):
                chunk = _chunk_of(record)
                if chunk is not None and chunk[0] in found:
                    found[chunk[0]].append((chunk[1], record.text, record.metadata))
            yield from found.items()

    def _records_of(self, owners: Sequence[str]) -> Iterator[Record]:
        if self._tables is not None:
            yield from self._tables.of_items(owners)
        else:
            for page in counted_pages(self._store, 0, where={OBJECT_KEY: {"$in": list(owners)}}):
                yield from page


def _chunk_of(record: Record) -> tuple[str, int] | None:
    """Return the item and the number of a chunk; None for a record that is no chunk."""
    return owner_of(record.id, record.metadata.get(HASH_KEY))
