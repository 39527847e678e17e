"""A collection as a source: its name, its state, and where to divide its records. `record_rows` reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from upsert_cli.errors import UsageFault
from upsert_cli.redaction import in_message
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.fingerprint import OF_COLLECTION, Fingerprint
from upsert_cli.sources.formats import SCHEME
from upsert_cli.sources.item import Row
from upsert_cli.sources.source import CollectionReader
from upsert_cli.store.address import (
    canonical_target,
    is_server,
    remedy_for_name,
    require_collection_name,
    source_credentials,
)
from upsert_cli.store.locate import location_at
from upsert_cli.store.location import Location
from upsert_cli.store.record_rows import RecordRows
from upsert_cli.store.target import CollectionInfo, CollectionState, Target

T = TypeVar("T")

SEPARATOR = "#"  # between target and collection; no collection's name has one
# Reading takes no lease. This is the working folder of a process that reads a server: it has no .env file.
NO_LEASES = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCollection(CollectionReader):
    """A collection to read; see `CollectionReader`."""

    chroma: str
    """A folder or an address, as `canonical_target` spells it."""

    collection: str

    target: str | None = field(default=None, compare=False)
    """The target of the load, whose credentials must not be sent to another server; None for a preview."""

    where: dict[str, Any] | None = field(default=None, compare=False)
    """Chroma's filter on the metadata; None for all records."""

    with_vectors: bool = field(default=False, compare=False)
    """Whether the items keep the records' vectors."""

    joins_chunks: bool = field(default=True, compare=False)
    """Whether chunks become their item again, where that is possible without a loss."""

    retry_for: float = field(default=RETRY_FOR, compare=False)
    """How long to keep retrying failed server requests, in seconds."""

    def __str__(self) -> str:
        return f"{SCHEME}{self.chroma}{SEPARATOR}{self.collection}"

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of the collection's id, its changes and its number of records."""
        state = self.state()
        return Fingerprint(size=state.records, mtime_ns=0, digest=f"{state.digest}{OF_COLLECTION}")

    def state(self) -> CollectionState:
        """Return the state of the collection.

        Raises:
            FileNotFoundError: There is no such collection.
        """
        return self._found(lambda location: location.state())

    def describe(self) -> CollectionInfo:
        """Return the collection's description.

        Raises:
            FileNotFoundError: There is no such collection.
        """
        return self._found(lambda location: location.describe())

    def _found(self, ask: Callable[[Location], T | None]) -> T:
        if (answer := ask(self.location())) is None:
            raise FileNotFoundError(
                f"there is no collection {self.collection} in {self.chroma}; {remedy_for_name(self.chroma)}"
            )
        return answer

    def is_same_as(self, chroma: str, collection: str) -> bool:
        """Return whether this is the same collection, under any spelling of its folder or server."""
        if self.collection != collection or is_server(self.chroma) != is_server(chroma):
            return False
        if self.chroma == chroma:
            return True
        if not is_server(chroma):
            return Path(chroma).exists() and Path(self.chroma).exists() and Path(chroma).samefile(self.chroma)
        there = location_at(chroma, collection, leases=NO_LEASES, retry_for=self.retry_for).state()
        return there is not None and there.id == self.state().id

    def count(self) -> int | None:
        """Return the number of records; None where only reading them shows it: with a filter, or joined chunks."""
        return None if self.where is not None or self.has_chunks() else self.state().records

    def has_chunks(self) -> bool:
        """Return whether there are chunks that are joined to their items."""
        return self.joins_chunks and self.location().has_chunks()

    def read(self, *, row: int, offset: int) -> Iterator[Row]:
        """Yield the records after a row; `offset` is the number of its record in the tables, or 0."""
        target = Target(
            path=self.chroma,
            collection=self.collection,
            as_found=True,
            reads_only=True,
            examined=True,
            retry_for=self.retry_for,
        )
        rows = RecordRows(
            target=target,
            location=self.location(),
            where=self.where,
            with_vectors=self.with_vectors,
            joins_chunks=self.joins_chunks,
        )
        return rows.after(row, offset)

    def boundaries(self, *, rows: int, size: int) -> Iterator[tuple[int, int]]:  # noqa: ARG002  # records have no size
        """Yield where to divide the records; with a filter, they are read to be counted."""
        records = self.location().numbered_records() if self.where is None else None
        if records is not None:
            yield from records.boundaries(rows=rows)
            return
        last = 0
        if self.where is None:
            last = self.state().records
        else:
            for each in replace(self, with_vectors=False).read(row=0, offset=0):
                last = each.number
        yield from ((row, 0) for row in range(rows, last, rows))
        if last:
            yield last, 0

    def location(self) -> Location:
        """Return the location of the collection, with the credentials for it."""
        variables = source_credentials(self.chroma, self.target)
        return location_at(
            self.chroma, self.collection, leases=NO_LEASES, retry_for=self.retry_for, variables=variables
        )


def collection_named(name: str) -> StoredCollection:
    """Return the collection that the user names as `chroma:TARGET#COLLECTION`.

    Raises:
        UsageFault: The name has another form, or its target or collection is not valid.
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
