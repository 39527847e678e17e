"""What the writer's process is asked to do, each as a message through the pipe, and what it says meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from upsert_cli.store.base import (
    CheckedRecords,
    Comparison,
    QueryHit,
    Record,
    RecordRef,
    RecordRefPage,
    Store,
    WriteBatch,
)

if TYPE_CHECKING:
    from upsert_cli.store.base import Vectors

Result_co = TypeVar("Result_co", covariant=True)


class Work(Protocol[Result_co]):
    """What the process does with the records, and answers."""

    def carry_out(self, records: Store) -> Result_co:
        """Does it, in the process that has the records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """Asks what has to be done about some documents."""

    ids: list[str]
    hashes: list[str]
    keys: list[tuple[str, ...]]

    def carry_out(self, records: Store) -> Comparison:
        """Returns what `Records.compare` does."""
        return records.compare(self.ids, self.hashes, self.keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Asks to write some records."""

    upserts: WriteBatch
    updates: WriteBatch

    def carry_out(self, records: Store) -> list[tuple[str, str]]:
        """Returns what `Records.write` does."""
        return records.write(self.upserts, self.updates)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBack:
    """Asks what is wrong with a run of records."""

    start: int
    rows: int
    every: int
    identity: str | None

    def carry_out(self, records: Store) -> CheckedRecords:
        """Returns what `Records.read_back` does."""
        return records.check(start=self.start, rows=self.rows, every=self.every, identity=self.identity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Asks for documents and metadata, of some ids or of a run of records."""

    ids: list[str] | None
    start: int
    rows: int

    def carry_out(self, records: Store) -> list[Record]:
        """Returns what `Records.fetch` does."""
        return records.fetch(self.ids, start=self.start, rows=self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Asks for the records nearest to a vector."""

    vector: Vectors
    """Float32, `(1, dimension)`."""

    rows: int
    where: dict[str, Any] | None

    def carry_out(self, records: Store) -> list[QueryHit]:
        """Returns what `Records.query` does."""
        return records.query(self.vector, rows=self.rows, where=self.where)


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Asks for the records of a scope among a run of records."""

    scope: str
    start: int
    rows: int

    def carry_out(self, records: Store) -> RecordRefPage:
        """Returns what `Records.members` does."""
        return records.members(self.scope, start=self.start, rows=self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class FindLeftovers:
    """Asks which records are of some items and no longer theirs."""

    parts: Mapping[str, int]
    average: bool

    def carry_out(self, records: Store) -> dict[str, list[RecordRef]]:
        """Returns what `Records.leftovers` does."""
        return records.find_stale_chunks(self.parts, average=self.average)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Asks to delete records that are still what they were."""

    members: list[RecordRef]

    def carry_out(self, records: Store) -> list[str]:
        """Returns what `Records.delete` does."""
        return records.delete(self.members)


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Asks to flush the index and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Says, while a request is being carried out, what a user should hear; the answer is still to come."""

    message: str


Request: TypeAlias = Work[Any] | Close
