"""The interface of a store, and the types of its answers; free of Chroma."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from upsert_cli.documents.hashing import HASH_KEY, is_chunk, is_same

if TYPE_CHECKING:
    from array import array

    import numpy as np
    from numpy.typing import NDArray

    Vector: TypeAlias = NDArray[np.float32]  # (dimension,)
    Vectors: TypeAlias = NDArray[np.float32]  # (rows, dimension)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRecords:
    """The faults of a range of records, each id with one line of reason."""

    rows: int
    """Records that were read."""

    unreadable: dict[str, str]
    """Records whose vector or document is missing or not valid."""

    different: dict[str, str]
    """Records whose content does not fit their hash."""

    unreachable: dict[str, str]
    """Records that a query by their own vector does not find."""

    asked: int
    """Records that were looked for by a query."""


class Record(NamedTuple):
    """A stored record."""

    id: str
    text: str | None
    metadata: dict[str, Any]

    number: int = 0
    """Its number among the records of all collections; 0 where it is not known."""

    fault: str | None = None
    """Why the record could not be read, in one line; only its id is certain then."""

    distance: float = 0.0
    """The distance from the vector of the query that found the record."""

    vector: array[float] | None = None
    """Its vector in 32 bits, if it was asked for."""


FindRecords: TypeAlias = Callable[[Sequence[str]], Iterable[Record]]
"""A function that returns the records that name one of some items as theirs."""


class NumberedRecords(Protocol):
    """The records of a collection by their numbers, read without the store's library and without a lease."""

    def after(self, number: int, *, rows: int) -> list[Record]:
        """Return the next records after a number, in the order of their numbers."""

    def boundaries(self, *, rows: int) -> Iterator[tuple[int, int]]:
        """Yield the count and the number of each record that ends a run of `rows` records, and of the last record."""

    def record_finder(self) -> FindRecords | None:
        """Return the function that finds the records of items; None while it would not find all of them."""


class RecordRef(NamedTuple):
    """A record that may be deleted: one of a scope, or a stale chunk."""

    id: str
    hash: str
    """Its `upsert_hash`, which changes with the text and the metadata."""


class Verdict(enum.IntEnum):
    """How a document compares with the collection."""

    NEW = 0
    TEXT = 1  # the text changed, or may have changed: embed and upsert
    METADATA = 2  # only the metadata changed: update
    UNCHANGED = 3
    TAKEN = 4  # its id belongs to a chunk of another item or, for a chunk, to an item stored as one record

    @classmethod
    def of(cls, upsert_hash: str, metadata: Mapping[str, Any] | None) -> Verdict:
        """Return the verdict on a document with a hash, by the metadata of its record; None if it has no record."""
        if metadata is None:
            return cls.NEW
        stored = metadata.get(HASH_KEY)
        if not isinstance(stored, str):
            return cls.TEXT
        if stored == upsert_hash or is_same(stored, upsert_hash):
            return cls.UNCHANGED
        if is_chunk(stored) != is_chunk(upsert_hash):
            return cls.TAKEN
        return cls.METADATA if stored.partition(".")[0] == upsert_hash.partition(".")[0] else cls.TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The verdicts on some documents, in their order."""

    verdicts: list[Verdict]

    stored_keys: Mapping[int, Sequence[str]] = field(default_factory=dict)
    """By index of a document that may have to be written, the metadata keys of its record."""

    stale_chunks: Mapping[str, Sequence[RecordRef]] = field(default_factory=dict)
    """By item, the records that are no longer part of it: chunks, or the whole item if it is split now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBatch:
    """Records to write with their vectors, or records whose metadata alone is updated."""

    ids: list[str]

    texts: Sequence[str | None]
    """Ignored where only metadata is updated; None for a record without a document."""

    metadatas: list[dict[str, Any]]
    """A value of None removes the key."""

    vectors: Vectors | None
    """Float32, `(len(ids), dimension)`; None updates the metadata alone."""

    def characters(self, rows: Sequence[int]) -> int:
        """Return the number of characters in all strings of some rows."""
        texts = sum(len(self.texts[row] or "") for row in rows) if self.vectors is not None else 0
        values = (value for row in rows for value in self.metadatas[row].values())
        return texts + sum(len(value) for value in values if isinstance(value, str))

    def take(self, rows: Sequence[int]) -> WriteBatch:
        """Return a batch of some of the rows."""
        return WriteBatch(
            ids=[self.ids[row] for row in rows],
            texts=[self.texts[row] for row in rows] if self.vectors is not None else [],
            metadatas=[self.metadatas[row] for row in rows],
            vectors=self.vectors[list(rows)] if self.vectors is not None else None,
        )


class Store(Protocol):
    """A collection that is open."""

    def compare(self, ids: list[str], hashes: list[str]) -> Comparison:
        """Compare documents with their records, by their `upsert_hash`, `<text>.<metadata>`."""

    def may_have_chunks(self) -> bool:
        """Return whether the collection may hold chunks."""

    def find_stale_chunks(self, chunks: Mapping[str, int], *, average: bool) -> dict[str, list[RecordRef]]:
        """Return, by item, the records that are no longer part of it, the last chunk first.

        Args:
            chunks: How many chunks each item has now; 0 for an item that is a single record.
            average: Whether split items have a record with the mean of their chunks.
        """

    def write(self, batch: WriteBatch) -> list[tuple[str, str]]:
        """Write all rows except those that are at fault themselves.

        Returns:
            The id of each row that was not written, and one line of reason.

        Raises:
            UpsertCliError: The store failed, or has no room, and no row is to blame; some rows may be written.
        """

    def delete(self, members: Sequence[RecordRef]) -> list[str]:
        """Delete records, except those that changed since they were found; return the ids of these.

        A missing record counts as deleted, since the answer to a first try may have been lost.
        """

    def fetch(
        self,
        ids: list[str] | None = None,
        *,
        start: int = 0,
        rows: int = 0,
        where: dict[str, Any] | None = None,
    ) -> list[Record]:
        """Return the records with these ids, or `rows` records from number `start` on, or fewer.

        `where` is a filter on the metadata; `UsageFault` is raised if the store does not understand it.
        """

    def vectors(self, ids: Sequence[str]) -> dict[str, array[float]]:
        """Return the vectors of these records in 32 bits, without those that the index lacks."""

    def members(self, scope: str, *, start: int, rows: int) -> tuple[int, list[RecordRef]]:
        """Read at most `rows` records from number `start` on; return their number, and those of them in a scope."""

    def check(self, *, start: int, rows: int, every: int, identity: str | None) -> CheckedRecords:
        """Read at most `rows` records from number `start` on with their vectors, and return their faults.

        Each record whose number is divisible by `every` is also looked for by a query. `identity` is that of the model,
        which is part of the hashes; None if the records have no hashes.
        """

    def query(self, vector: Vectors, *, rows: int, where: dict[str, Any] | None) -> list[Record]:
        """Return the `rows` records nearest to a vector, float32 `(1, dimension)`, the nearest first.

        `where` is a filter on the metadata; `UsageFault` is raised if the store does not understand it.
        """

    def rename(self, name: str, *, aside: str | None) -> int:
        """Rename the collection, and return the number of its records; only `close` may follow.

        Args:
            name: The new name.
            aside: A name for the collection that has the new name now; None if there is no such collection. After a
                crash between the two steps, both collections exist, and a second call completes the renaming.
        """

    def drop(self) -> int:
        """Delete the collection, and return the number of records that it held; only `close` may follow."""

    def close(self) -> None:
        """Flush the index, so that the next reader opens it at once, and close the collection."""

    def abandon(self) -> None:
        """Close the collection without a flush: all records are safe, but the next reader opens it slowly."""
