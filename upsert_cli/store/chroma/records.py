"""The store in Chroma: compares documents with a collection, writes records, and finds the rows that cannot be written.

It runs in a process of its own; see `process`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from upsert_cli.bisect import failing_rows
from upsert_cli.documents.hashing import HASH_KEY, is_chunk, is_same
from upsert_cli.errors import UpsertCliError
from upsert_cli.store.base import (
    CheckedRecords,
    Comparison,
    Opened,
    QueryHit,
    Record,
    RecordRef,
    RecordRefPage,
    Target,
    Verdict,
    WriteBatch,
)
from upsert_cli.store.chroma import queries
from upsert_cli.store.chroma.collection import OpenCollection, retrying_locks
from upsert_cli.store.chroma.faults import is_data_fault, reason, understood
from upsert_cli.store.chroma.row_limits import row_faults

if TYPE_CHECKING:
    from chromadb.api.client import Client

    from upsert_cli.store.base import Vectors
    from upsert_cli.store.chroma.collection import ChromaLocation
    from upsert_cli.store.leasing import Ledger

WRITE_ROWS = 512  # rows a call; the index survives kill -9 best with so many, and more gain nothing (measured)


class ChromaStore:
    """The records of an open collection; see `base.Store`."""

    def __init__(
        self, target: Target, location: ChromaLocation, collection: OpenCollection, *, unflushed: bool
    ) -> None:
        """Take over an open collection; use `open`."""
        self._target = target
        self._location = location
        self._collection = collection
        self._quotas = quotas = location.quotas
        self._write_rows = quotas.most_rows(min(WRITE_ROWS, collection.max_batch))
        self._read_rows = quotas.most_rows(queries.READ_ROWS)
        self._unflushed = unflushed  # whether rows may be queued that the index files lack
        self._has_chunks: bool | None = None  # None: not yet known

    @classmethod
    def open(
        cls,
        target: Target,
        location: ChromaLocation,
        client: Client,
        *,
        unclean: bool,
        rows: int | None,
        ledger: Ledger | None,
    ) -> tuple[ChromaStore, Opened]:
        """Open the collection through a connected client; see `Location.open`."""
        collection = OpenCollection.open(target, location, client, suspicious=unclean, rows=rows, ledger=ledger)
        store = cls(target, location, collection, unflushed=unclean)
        return store, Opened(
            created=collection.created,
            count=collection.count,
            max_batch=store._write_rows,
            warnings=collection.warnings,
            unclean=unclean,
        )

    def close(self) -> None:
        """Flush the index and close the collection."""
        try:
            if self._unflushed:
                self._collection.flush()
        except BaseException:
            with suppress(UpsertCliError):  # the first error is the one that counts
                self._collection.close()
            raise
        self._collection.close()

    def abandon(self) -> None:
        """Close the collection without a flush."""
        self._collection.close()

    def compare(self, ids: Sequence[str], hashes: Sequence[str], keys: Sequence[Sequence[str]]) -> Comparison:
        """Compare documents with their records."""
        stored = self._metadata_of(ids)
        return Comparison(
            verdicts=[_verdict(stored.get(one), hashed) for one, hashed in zip(ids, hashes, strict=True)],
            stale_keys=[tuple(stored.get(one, {}).keys() - own) for one, own in zip(ids, keys, strict=True)],
        )

    def find_stale_chunks(self, chunks: Mapping[str, int], *, average: bool) -> dict[str, list[RecordRef]]:
        """Return the records that are no longer part of their items; nothing is searched where there are no chunks."""
        chroma = self._collection.chroma
        with understood(self._target):
            if any(chunks.values()):
                self._has_chunks = True
            elif self._has_chunks is None:
                self._has_chunks = retrying_locks(lambda: queries.may_have_chunks(chroma))
            if not self._has_chunks:
                return {}
            return retrying_locks(lambda: queries.find_stale_chunks(chroma, chunks, average=average))

    def check(self, *, start: int, rows: int, every: int, identity: str | None) -> CheckedRecords:
        """Read records back with their vectors."""
        chroma, rows, dimension = self._collection.chroma, self._quotas.most_rows(rows), self._target.dimension
        with understood(self._target):
            return retrying_locks(
                lambda: queries.check_records(
                    chroma, dimension=dimension, start=start, rows=rows, every=every, identity=identity
                )
            )

    def fetch(self, ids: list[str] | None = None, *, start: int = 0, rows: int = 0) -> list[Record]:
        """Return the records with these ids, or `rows` records from number `start` on."""
        chroma, step, end = self._collection.chroma, self._read_rows, start + rows
        parts: list[dict[str, Any]]
        if ids is None:
            parts = [{"limit": min(step, end - first), "offset": first} for first in range(start, end, step)]
        else:
            parts = [{"ids": ids[first : first + step]} for first in range(0, len(ids), step)]
        found: list[Record] = []
        with understood(self._target):
            for which in parts:
                found += retrying_locks(functools.partial(queries.fetch, chroma, **which))
        return found

    def query(self, vector: Vectors, *, rows: int, where: dict[str, Any] | None) -> list[QueryHit]:
        """Return the records nearest to a vector."""
        with understood(self._target):
            return retrying_locks(lambda: queries.nearest(self._collection.chroma, vector, rows=rows, where=where))

    def members(self, scope: str, *, start: int, rows: int) -> RecordRefPage:
        """Return the records of a scope."""
        rows = self._quotas.most_rows(rows)
        with understood(self._target):
            return retrying_locks(lambda: queries.members_of(self._collection.chroma, scope, start=start, rows=rows))

    def delete(self, members: Sequence[RecordRef]) -> list[str]:
        """Delete records that have not changed."""
        self._location.require_space(len(members))
        stored = self._metadata_of([member.id for member in members])
        had = [member for member in members if member.id in stored]
        same = [member.id for member in had if stored[member.id].get(HASH_KEY) == member.hash]
        self._unflushed = self._unflushed or bool(same)
        with understood(self._target):
            for part in _parts(same, self._write_rows):
                retrying_locks(functools.partial(self._collection.chroma.delete, ids=part))
                self._collection.wrote(len(part), 0)
        return [member.id for member in had if stored[member.id].get(HASH_KEY) != member.hash]

    def write(self, batch: WriteBatch) -> list[tuple[str, str]]:
        """Write all rows except those that are at fault themselves."""
        self._location.require_space(len(batch.ids))
        faults = row_faults(batch, self._target, self._quotas)
        good = [row for row in range(len(batch.ids)) if row not in faults]
        self._unflushed = self._unflushed or bool(good)
        with understood(self._target):
            for part in _parts(good, self._write_rows):
                failing = failing_rows(
                    part, lambda rows: retrying_locks(self._writing(batch.take(rows))), is_data_fault=is_data_fault
                )
                if failing and len(failing) == len(part):
                    self._collection.check_takes_any(failing[0][1])
                faults.update((row, f"Chroma rejects it: {reason(error)}") for row, error in failing)
                self._collection.wrote(len(part), batch.characters(part))
        return [(batch.ids[row], faults[row]) for row in sorted(faults)]

    def _writing(self, rows: WriteBatch) -> Callable[[], None]:
        """Return the call that writes all of the rows."""
        chroma, metadatas = self._collection.chroma, cast("list[Mapping[str, Any]]", rows.metadatas)
        if rows.vectors is None:
            return functools.partial(chroma.update, ids=rows.ids, metadatas=metadatas)
        return functools.partial(
            chroma.upsert, ids=rows.ids, documents=rows.texts, metadatas=metadatas, embeddings=rows.vectors
        )

    def _metadata_of(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the metadata of those records that exist."""
        chroma = self._collection.chroma
        found: dict[str, dict[str, Any]] = {}
        with understood(self._target):
            for part in _parts(queries.storable(ids), self._read_rows):
                found |= retrying_locks(functools.partial(queries.fetch_metadata, chroma, ids=part))
        return found


def _parts(values: Sequence[Any], size: int) -> Iterator[list[Any]]:
    """Yield the values in lists of at most `size`."""
    rest = iter(values)
    while part := [*itertools.islice(rest, size)]:
        yield part


def _verdict(stored: dict[str, Any] | None, hashed: str) -> Verdict:
    if stored is None:
        return Verdict.NEW
    had = stored.get(HASH_KEY)
    if had == hashed or (isinstance(had, str) and is_same(had, hashed)):
        return Verdict.UNCHANGED
    if isinstance(had, str) and is_chunk(had) != is_chunk(hashed):
        return Verdict.TAKEN
    same_text = isinstance(had, str) and had.partition(".")[0] == hashed.partition(".")[0]
    return Verdict.METADATA if same_text else Verdict.TEXT
