"""The records of a collection as rows, read page by page, with the chunks of an item joined.

Reading takes no lease. The records of a folder come from its tables by their numbers, so reading can continue at any
record without reading those before it. A server returns a page with its vectors in one request, but counts the records
before the page each time, and so does Chroma with a filter. Only filters, and the vectors of a folder, need Chroma's
library, which runs in a child process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from upsert_cli.documents.hashing import CHUNK_KEY, HASH_KEY, OBJECT_KEY, owner_of
from upsert_cli.documents.stored_items import item_of_record, joined
from upsert_cli.sources.item import Item, Row
from upsert_cli.store.base import FindRecords, NumberedRecords, Record, Store
from upsert_cli.store.location import Location
from upsert_cli.store.process import StoreProcess
from upsert_cli.store.target import Target

JOINED_ITEMS = 64  # items whose chunks are read at once
PAGE_ROWS = 1_000  # records read at once: 1.5 MB of vectors with 384 numbers

Pages: TypeAlias = Iterator[list[Record]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRows:
    """The records of a collection as rows whose values are items."""

    target: Target
    """The collection, for the cases in which it has to be opened."""

    location: Location
    where: dict[str, Any] | None
    """Chroma's filter on the metadata; None for all records."""

    with_vectors: bool
    """Whether the items keep the records' vectors."""

    joins_chunks: bool
    """Whether chunks become their item again, where that is possible without a loss."""

    def after(self, row: int, number: int) -> Iterator[Row]:
        """Yield the rows after a row; `number` is the number of its record in the tables, or 0 if it has none.

        Raises:
            FileNotFoundError: There is no such collection.
            UsageFault: Chroma does not understand the filter.
        """
        with ExitStack() as stack:
            pages, find_records = self._pages_after(row, number, stack)
            for page, items in _joined_pages(pages, find_records):
                for record in page:
                    row += 1
                    item = items[record.id] if record.id in items else self._item(record)
                    if item is not None:
                        yield Row(row, item, record.number)

    def _pages_after(self, row: int, number: int, stack: ExitStack) -> tuple[Pages, FindRecords | None]:
        """Return the pages, and a function that finds the chunks of items; None if chunks are not joined."""
        # A filter may choose some of an item's chunks.
        joins = self.joins_chunks and f'"{CHUNK_KEY}"' not in json.dumps(self.where)
        fetching = self.location.fetching(with_vectors=self.with_vectors) if self.where is None else None
        if fetching is not None:
            fetch = stack.enter_context(fetching)
            return _counted(fetch, row), _finder(fetch) if joins else None
        if self.where is None and (number or not row):
            return self._numbered_after(number, stack, joins=joins)
        store = self._opened(stack)
        pages = _counted(store.fetch, row, where=self.where)
        if self.with_vectors:
            pages = _with_vectors(pages, store)
        return pages, _finder(store.fetch) if joins else None

    def _numbered_after(self, number: int, stack: ExitStack, *, joins: bool) -> tuple[Pages, FindRecords | None]:
        """Return the pages of the tables, and a function that finds the chunks of items."""
        store = self._opened(stack) if self.with_vectors else None
        if (records := self.location.numbered_records()) is None:
            raise FileNotFoundError(f"there is no collection {self.target.collection} in {self.target.path}")
        pages = _numbered(records, number)
        return pages if store is None else _with_vectors(pages, store), records.record_finder() if joins else None

    def _opened(self, stack: ExitStack) -> StoreProcess:
        target = replace(self.target, beside_others=not self.location.reading_flushes())
        store = stack.enter_context(StoreProcess(target, location=self.location))
        if self.with_vectors:
            # Reading a vector makes Chroma apply queued changes, so the tables are read only after that.
            store.vectors([record.id for record in store.fetch(rows=1)])
        return store

    def _item(self, record: Record) -> Item:
        fault = record.fault
        if self.with_vectors and record.vector is None:
            fault = fault or "the index has no vector of it; without --keep-vectors its document is embedded"
        return item_of_record(record.id, record.text, record.metadata, vector=record.vector, fault=fault)


# -- pages -------------------------------------------------------------------------------------------------------------


def _numbered(records: NumberedRecords, number: int) -> Pages:
    """Yield the pages after a number."""
    while page := records.after(number, rows=PAGE_ROWS):
        yield page
        number = page[-1].number


def _counted(fetch: Callable[..., list[Record]], row: int, *, where: dict[str, Any] | None = None) -> Pages:
    """Yield the pages after a number of records, which have no numbers in any table."""
    while page := fetch(start=row, rows=PAGE_ROWS, where=where):
        yield page
        row += len(page)


def _finder(fetch: Callable[..., list[Record]]) -> FindRecords:
    """Return a function that asks a store for the records of items."""

    def find(items: Sequence[str]) -> Iterator[Record]:
        for page in _counted(fetch, 0, where={OBJECT_KEY: {"$in": [*items]}}):
            yield from page

    return find


def _with_vectors(pages: Pages, store: Store) -> Pages:
    for page in pages:
        vectors = store.vectors([record.id for record in page])
        yield [record._replace(vector=vectors.get(record.id)) for record in page]


# -- chunks ------------------------------------------------------------------------------------------------------------


def _joined_pages(
    pages: Pages, find_records: FindRecords | None
) -> Iterator[tuple[list[Record], dict[str, Item | None]]]:
    """Yield each page with the items of its joined chunks by their ids: the item for the first chunk, else None."""
    items: dict[str, Item | None] = {}  # of the page before, then of this page; None for an item that cannot be joined
    for page in pages:
        if find_records is None:
            yield page, {}
            continue
        chunks = {record.id: chunk for record in page if (chunk := _chunk_of(record)) is not None}
        owners = {owner for owner, _ in chunks.values()}
        known = {owner: items[owner] for owner in owners & items.keys()}
        items = known | dict(_joined_items(owners - known.keys(), find_records))
        joined_chunks: dict[str, Item | None] = {}
        for identifier, (owner, number) in chunks.items():
            if (item := items[owner]) is not None:
                joined_chunks[identifier] = item if number == 0 else None
        yield page, joined_chunks


def _joined_items(owners: Set[str], find_records: FindRecords) -> Iterator[tuple[str, Item | None]]:
    """Yield each item with its joined chunks; None for an item that cannot be joined."""
    for start in range(0, len(owners), JOINED_ITEMS):
        some = sorted(owners)[start : start + JOINED_ITEMS]
        found: dict[str, list[tuple[int, str | None, dict[str, Any]]]] = {owner: [] for owner in some}
        for record in find_records(some):
            chunk = _chunk_of(record)
            if chunk is not None and chunk[0] in found:
                found[chunk[0]].append((chunk[1], record.text, record.metadata))
        yield from ((owner, joined(owner, chunks)) for owner, chunks in found.items())


def _chunk_of(record: Record) -> tuple[str, int] | None:
    """Return the item and the number of a chunk; None for any other record."""
    return owner_of(record.id, record.metadata.get(HASH_KEY))
