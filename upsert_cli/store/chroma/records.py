"""The store in Chroma: compares documents with a collection, writes records, and finds the rows that cannot be written.

It runs in a process of its own; see `process`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from upsert_cli.bisect import failing_rows
from upsert_cli.documents.hashing import HASH_KEY, is_chunk, is_same
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
    from upsert_cli.store.locations import Ledger

WRITE_ROWS = 512  # rows a call; the index survives kill -9 best with so many, and more gain nothing (measured)


class ChromaStore:
    """The records of an open collection; see `base.Store`."""

    def __init__(
        self,
        target: Target,
        location: ChromaLocation,
        client: Client,
        *,
        unclean: bool,
        rows: int | None,
        ledger: Ledger | None,
    ) -> None:
        """Open the collection through a connected client; see `Location.open`."""
        self._target = target
        self._location = location
        self._collection = OpenCollection(target, location, client, suspicious=unclean, rows=rows, ledger=ledger)
        self._ask = self._collection.ask
        self._write_rows = min(WRITE_ROWS, self._collection.max_batch, location.most_rows)
        self._read_rows = min(queries.READ_ROWS, location.most_rows)
        self._unflushed = unclean  # whether rows may be queued that the index files lack
        self._has_chunks: bool | None = None  # None: not yet known
        self.opened = Opened(
            created=self._collection.created,
            count=self._collection.count,
            max_batch=self._write_rows,
            warnings=self._collection.warnings,
            unclean=unclean,
        )

    def close(self) -> None:
        """Flush the index and close the collection."""
        try:
            if self._unflushed:
                self._collection.flush()
        except BaseException:
            self._collection.close_after_error()
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
        if any(chunks.values()):
            self._has_chunks = True
        elif self._has_chunks is None:
            self._has_chunks = self._ask(queries.may_have_chunks)
        return self._ask(queries.find_stale_chunks, chunks, average=average) if self._has_chunks else {}

    def check(self, *, start: int, rows: int, every: int, identity: str | None) -> CheckedRecords:
        """Read records back with their vectors."""
        return self._ask(
            queries.check_records,
            dimension=self._target.dimension,
            start=start,
            rows=min(rows, self._location.most_rows),
            every=every,
            identity=identity,
        )

    def fetch(self, ids: list[str] | None = None, *, start: int = 0, rows: int = 0) -> list[Record]:
        """Return the records with these ids, or `rows` records from number `start` on."""
        step = self._read_rows
        parts: Iterator[dict[str, Any]]
        if ids is None:
            parts = ({"limit": len(part), "offset": part[0]} for part in _parts(range(start, start + rows), step))
        else:
            parts = ({"ids": part} for part in _parts(ids, step))
        return [record for which in parts for record in self._ask(queries.fetch, **which)]

    def query(self, vector: Vectors, *, rows: int, where: dict[str, Any] | None) -> list[QueryHit]:
        """Return the records nearest to a vector."""
        return self._ask(queries.nearest, vector, rows=rows, where=where)

    def members(self, scope: str, *, start: int, rows: int) -> RecordRefPage:
        """Return the records of a scope."""
        return self._ask(queries.members_of, scope, start=start, rows=min(rows, self._location.most_rows))

    def delete(self, members: Sequence[RecordRef]) -> list[str]:
        """Delete records that have not changed."""
        self._location.require_space(len(members))
        stored = self._metadata_of([member.id for member in members])
        had = [member for member in members if member.id in stored]
        same = [member.id for member in had if stored[member.id].get(HASH_KEY) == member.hash]
        self._unflushed = self._unflushed or bool(same)
        for part in _parts(same, self._write_rows):
            self._ask(queries.delete, part)
            self._collection.wrote(len(part), 0)
        return [member.id for member in had if stored[member.id].get(HASH_KEY) != member.hash]

    def write(self, batch: WriteBatch) -> list[tuple[str, str]]:
        """Write all rows except those that are at fault themselves."""
        self._location.require_space(len(batch.ids))
        faults = row_faults(batch, self._target, in_cloud=self._location.in_cloud)
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
        found: dict[str, dict[str, Any]] = {}
        for part in _parts(queries.storable(ids), self._read_rows):
            found |= self._ask(queries.fetch_metadata, ids=part)
        return found


def _parts(values: Sequence[Any], size: int) -> Iterator[Any]:
    """Yield the values in slices of at most `size`."""
    return (values[start : start + size] for start in range(0, len(values), size))


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
