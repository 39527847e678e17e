"""A collection as a source: its records as rows, from Chroma's tables where they can be read, else through a store.

Reading takes no lease. A folder's records come from its tables by their numbers, so a position in
them costs nothing to return to; vectors, filters and servers need the store, which counts the records before a page.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from upsert_cli import __version__
from upsert_cli.documents.hashing import CHUNK_KEY
from upsert_cli.documents.stored_items import item_of_record
from upsert_cli.embedding.identity import ModelIdentity
from upsert_cli.errors import UsageFault
from upsert_cli.redaction import in_message
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.formats import SCHEME
from upsert_cli.sources.item import Item, Row
from upsert_cli.sources.source import OF_COLLECTION, CollectionReader, Fingerprint
from upsert_cli.store.address import canonical_target, is_server, require_collection_name, source_credentials
from upsert_cli.store.base import Record, Target
from upsert_cli.store.location import CollectionInfo, CollectionState, Location
from upsert_cli.store.locations import location_at, remedy_for_name
from upsert_cli.store.process import StoreProcess
from upsert_cli.store.record_pages import JoinedChunks, counted_pages, numbered_pages

if TYPE_CHECKING:
    from upsert_cli.store.base import Vectors
    from upsert_cli.store.chroma.tables import RecordTables

T = TypeVar("T")

DIGEST_BYTES = 16  # of a collection's state; a collision is practically impossible
SEPARATOR = "#"  # between target and collection; no collection's name has one


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCollection(CollectionReader):
    """A collection that is read; see `CollectionReader`."""

    chroma: str
    """As `canonical_target` spells it."""

    collection: str

    target: str | None = field(default=None, compare=False)
    """The target of the load, whose credentials are not for other servers; None for a preview."""

    where: dict[str, Any] | None = field(default=None, compare=False)
    """Chroma's filter on the metadata; None for all records."""

    with_vectors: bool = field(default=False, compare=False)
    """Whether the items keep the records' vectors."""

    joins_chunks: bool = field(default=True, compare=False)
    """Whether the chunks of an item become that item again, as far as that is certain."""

    retry_for: float = field(default=RETRY_FOR, compare=False)
    """How long to keep retrying failed server requests, in seconds."""

    def __str__(self) -> str:
        return f"{SCHEME}{self.chroma}{SEPARATOR}{self.collection}"

    def fingerprint(self) -> Fingerprint:
        """Ask for the collection's id, its changes and its number of records."""
        state = self.state()
        digest = hashlib.blake2b(f"{state.id} {state.changes}".encode(), digest_size=DIGEST_BYTES).hexdigest()
        return Fingerprint(size=state.records, mtime_ns=0, digest=f"{digest}{OF_COLLECTION}")

    def state(self) -> CollectionState:
        """Return the state of the collection.

        Raises:
            FileNotFoundError: There is no such collection.
        """
        return self._found(lambda location: location.state())

    def describe(self) -> CollectionInfo:
        """Return the description that the collection gives of itself.

        Raises:
            FileNotFoundError: There is no such collection.
        """
        return self._found(lambda location: location.describe())

    def _found(self, ask: Callable[[Location], T | None]) -> T:
        with self.location() as location:
            answer = ask(location)
        if answer is None:
            raise FileNotFoundError(
                f"there is no collection {self.collection} in {self.chroma}; {remedy_for_name(self.chroma)}"
            )
        return answer

    def is_same_as(self, chroma: str, collection: str) -> bool:
        """Tell whether this is a certain collection, under any spelling of its folder or server."""
        if self.collection != collection or is_server(self.chroma) != is_server(chroma):
            return False
        if self.chroma == chroma:
            return True
        if not is_server(chroma):
            return Path(chroma).exists() and Path(self.chroma).exists() and Path(chroma).samefile(self.chroma)
        with tempfile.TemporaryDirectory(prefix="upsert-cli-") as leases:
            there = location_at(chroma, collection, leases=Path(leases), retry_for=self.retry_for).state()
        return there is not None and there.id == self.state().id

    def count(self) -> int | None:
        """Return the number of records, unless they would have to be read for that: for a filter, or joined chunks."""
        return None if self.where is not None or self.has_chunks() else self.state().records

    def has_chunks(self) -> bool:
        """Tell whether there are chunks that are joined to their items."""
        if not self.joins_chunks:
            return False
        with self.location() as location:
            if (tables := location.tables()) is not None:
                return tables.has_chunks()
            info = location.describe()
            if info is None or info.stamp is None:  # a server's collection that this tool did not make
                return False
            with ExitStack() as stack:
                return self._opened(location, stack).may_have_chunks()

    def read(self, *, row: int, offset: int) -> Iterator[Row]:
        """Yield the records; an offset is a record's number in the tables, 0 where they are counted."""
        with self.location() as location, ExitStack() as stack:
            store = self._opened(location, stack) if self.with_vectors else None
            if store is not None:
                # The first vectors make Chroma apply queued changes, so the tables are looked at after that.
                store.vectors([record.id for record in store.fetch(rows=1)])
            tables = self._tables(location) if offset or not row else None
            if tables is None:
                store = store or self._opened(location, stack)
            pages = counted_pages(store, row, where=self.where) if tables is None else numbered_pages(tables, offset)
            chunks = JoinedChunks(tables, store, is_wanted=self._joins(tables))
            for page in pages:
                vectors = self._vectors(page, store)
                joined = chunks.join(page)
                for record in page:
                    row += 1
                    item = joined[record.id] if record.id in joined else self._item(record, vectors)
                    if item is not None:
                        yield Row(row, item, record.number)

    def _tables(self, location: Location) -> RecordTables | None:
        """Return the tables to read; None where Chroma has to apply a filter, and on a server."""
        return location.tables() if self.where is None else None

    def _joins(self, tables: RecordTables | None) -> bool:
        """Tell whether chunks are joined; a filter may choose some of an item's, and queued ones are not all found."""
        is_certain = tables is None or not tables.queued
        return self.joins_chunks and is_certain and f'"{CHUNK_KEY}"' not in json.dumps(self.where)

    def _vectors(self, page: Sequence[Record], store: StoreProcess | None) -> dict[str, Vectors]:
        if not self.with_vectors or store is None:
            return {}
        return store.vectors([record.id for record in page])

    def _item(self, record: Record, vectors: Mapping[str, Vectors]) -> Item:
        vector, fault = None, record.fault
        if fault is None and self.with_vectors and record.id in vectors:
            vector = array("f", vectors[record.id].tobytes())
        elif self.with_vectors:
            fault = fault or "the index has no vector of it; without --keep-vectors its document is embedded"
        return item_of_record(record.id, record.text, record.metadata, vector=vector, fault=fault)

    def boundaries(self, *, rows: int, size: int) -> Iterator[tuple[int, int]]:  # noqa: ARG002  # records have no size
        """Yield where to divide the records; those that a filter chooses are counted by reading them."""
        with self.location() as location:
            tables = self._tables(location)
        if tables is not None:
            yield from tables.boundaries(rows=rows)
            return
        last = self.state().records if self.where is None else sum(1 for _ in self.read(row=0, offset=0))
        yield from ((row, 0) for row in range(rows, last, rows))
        if last:
            yield last, 0

    @contextmanager
    def location(self) -> Iterator[Location]:
        """Yield where the collection is, with the credentials for it."""
        names = source_credentials(self.chroma, self.target)
        with ExitStack() as stack:
            # Its process works in the folder of leases, although it takes none.
            leases = Path()
            if is_server(self.chroma):
                leases = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="upsert-cli-")))
            yield location_at(self.chroma, self.collection, leases=leases, retry_for=self.retry_for, names=names)

    def _opened(self, location: Location, stack: ExitStack) -> StoreProcess:
        target = Target(
            path=self.chroma,
            collection=self.collection,
            model=ModelIdentity(name="", dimension=0, max_tokens=0),
            tool_version=__version__,
            as_found=True,
            beside_others=not location.reading_flushes(),
            reads_only=True,
            examined=True,
            retry_for=self.retry_for,
        )
        return stack.enter_context(StoreProcess(target, location=location))


def collection_named(name: str) -> StoredCollection:
    """Return the collection that the user names as `chroma:TARGET#COLLECTION`.

    Raises:
        UsageFault: The name is not of that form, or a part of it is not valid.
    """
    chroma, separator, collection = name.removeprefix(SCHEME).rpartition(SEPARATOR)
    if not separator or not chroma:
        raise UsageFault(
            message=f"{in_message(name)}: a collection is named as chroma:TARGET#COLLECTION, such as "
            f"chroma:./chroma#default or chroma:http://localhost:8000#default"
        )
    try:
        require_collection_name(collection)
        return StoredCollection(chroma=canonical_target(chroma), collection=collection)
    except UsageFault as error:
        raise UsageFault(message=f"the source {in_message(name)}: {error}") from error
