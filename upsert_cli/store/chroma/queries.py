"""The store in Chroma as a reader: records, nearest records, stale chunks, and checks of the vectors.

Chroma counts and lists records from its database and does not notice missing vectors. A request for a vector that the
index lacks fails as a whole.
"""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from upsert_cli.documents.hashing import AVERAGE_NUMBER, CHUNK_KEY, HASH_KEY, OBJECT_KEY, is_chunk, owner_of
from upsert_cli.documents.metadata import SCOPE_KEY
from upsert_cli.errors import UsageFault
from upsert_cli.store.address import CLOUD_ROWS
from upsert_cli.store.base import CheckedRecords, Comparison, Record, RecordRef, Verdict
from upsert_cli.store.chroma.collection import OpenCollection
from upsert_cli.store.chroma.faults import is_data_fault, reason, string_fault
from upsert_cli.store.chroma.read_back import checked, stored_vectors

if TYPE_CHECKING:
    from upsert_cli.store.base import Vectors

READ_ROWS = 1_000  # rows a call; `get` takes some 5,000 ids at most

FIRST_CHUNKS: dict[str, Any] = {"$and": [{CHUNK_KEY: 0}, {OBJECT_KEY: {"$ne": ""}}]}
"""A filter that finds the first chunks of items; an item may have metadata keys of these names too."""


class ChromaReader(OpenCollection):
    """An open collection whose records are read; see `base.Store`."""

    def compare(self, ids: Sequence[str], hashes: Sequence[str]) -> Comparison:
        """Compare documents with their records."""
        stored = self._metadata_of(ids)
        return Comparison(
            verdicts=[Verdict.of(hashed, stored.get(one)) for one, hashed in zip(ids, hashes, strict=True)],
            stored_keys={row: [*stored[one]] for row, one in enumerate(ids) if one in stored},
        )

    def fetch(
        self,
        ids: list[str] | None = None,
        *,
        start: int = 0,
        rows: int = 0,
        where: dict[str, Any] | None = None,
    ) -> list[Record]:
        """Return the records with these ids, or `rows` records from number `start` on, or fewer."""
        step = self._read_rows
        parts: Iterator[dict[str, Any]]
        if ids is None:
            parts = ({"limit": len(part), "offset": part[0]} for part in parts_of(range(start, start + rows), step))
        else:
            parts = ({"ids": part} for part in parts_of(ids, step))
        return [record for which in parts for record in self._records(**which, where=where)]

    def vectors(self, ids: Sequence[str]) -> dict[str, array[float]]:
        """Return the vectors of these records, without those that the index lacks."""
        parts = (self._call(stored_vectors, self._chroma, part) for part in parts_of(ids, self._read_rows))
        return {one: array("f", vector.tobytes()) for found in parts for one, vector in found.items()}

    def members(self, scope: str, *, start: int, rows: int) -> tuple[int, list[RecordRef]]:
        """Return the records of a scope."""
        found = self._metadata(limit=self._within_quota(rows), offset=start)
        # Filtered here, since Chroma would apply a filter to all records for every page.
        of_scope = ((one, metadata) for one, metadata in found.items() if metadata.get(SCOPE_KEY) == scope)
        return len(found), [RecordRef(one, str(metadata.get(HASH_KEY))) for one, metadata in of_scope]

    def query(self, vector: Vectors, *, rows: int, where: dict[str, Any] | None) -> list[Record]:
        """Return the records nearest to a vector."""
        include = ["documents", "metadatas", "distances"]
        found = self._ask(self._chroma.query, query_embeddings=vector, n_results=rows, where=where, include=include)
        # The answer has one list for each vector in the request.
        columns = (found[name][0] for name in ("distances", "documents", "metadatas"))
        return [
            Record(one, text, dict(metadata or {}), distance=float(distance))
            for one, distance, text, metadata in zip(found["ids"][0], *columns, strict=True)
        ]

    def check(self, *, start: int, rows: int, every: int, identity: str | None) -> CheckedRecords:
        """Read records back with their vectors."""
        records = self._records(limit=self._within_quota(rows), offset=start)
        dimension = self._target.model.dimension
        return self._call(
            checked, self._chroma, records, start=start, every=every, dimension=dimension, identity=identity
        )

    def _ask(self, method: Callable[..., Any], *, where: dict[str, Any] | None = None, **asked: Any) -> Any:
        """Call a method with the user's filter; see `_call`."""

        def ask() -> Any:
            try:
                return method(where=where, **asked)
            except Exception as error:
                if where is None or not is_data_fault(error):
                    raise
                raise UsageFault(
                    message=f"--where {json.dumps(where)}: {reason(error).rstrip('.')}; it takes a filter of Chroma's "
                    f'on the metadata, such as \'{{"year": 2024}}\' or \'{{"year": {{"$gte": 2024}}}}\''
                ) from error

        return self._call(ask)

    def _records(self, **asked: Any) -> list[Record]:
        """Return records with documents and metadata; `asked` goes to Chroma's `get`."""
        read = self._ask(self._chroma.get, **asked, include=["documents", "metadatas"])
        columns = zip(read["ids"], read["documents"], read["metadatas"], strict=True)
        return [Record(one, text, dict(metadata or {})) for one, text, metadata in columns]

    def _metadata(self, **asked: Any) -> dict[str, dict[str, Any]]:
        """Return the metadata of records by their ids; `asked` goes to Chroma's `get`."""
        read = self._call(self._chroma.get, **asked, include=["metadatas"])
        return {one: dict(metadata or {}) for one, metadata in zip(read["ids"], read["metadatas"] or [], strict=True)}

    def _metadata_of(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the metadata of records by their ids, without missing records."""
        found: dict[str, dict[str, Any]] = {}
        for part in parts_of(_storable(ids), self._read_rows):
            found |= self._metadata(ids=part)
        return found

    @property
    def _read_rows(self) -> int:
        return self._within_quota(READ_ROWS)

    def _within_quota(self, rows: int) -> int:
        return min(rows, CLOUD_ROWS) if self._in_cloud else rows

    # -- chunks --------------------------------------------------------------------------------------------------------

    def may_have_chunks(self) -> bool:
        """Return whether there may be chunks."""
        return bool(self._call(self._chroma.get, where=FIRST_CHUNKS, limit=1, include=[])["ids"])

    def find_stale_chunks(self, chunks: Mapping[str, int], *, average: bool) -> dict[str, list[RecordRef]]:
        """Return the records that are no longer part of their items."""
        found: dict[str, list[RecordRef]] = {}
        asked = _storable([*chunks])
        for object_id, number, member in sorted(self._chunks_of(asked), reverse=True):
            is_kept = (average and chunks[object_id]) if number == AVERAGE_NUMBER else number < chunks[object_id]
            if not is_kept:
                found.setdefault(object_id, []).append(member)
        # Items that are split now, but are stored as one record.
        for identifier, metadata in self._metadata_of([one for one in asked if chunks[one]]).items():
            hashed = metadata.get(HASH_KEY)
            if hashed is not None and not is_chunk(hashed):
                found.setdefault(identifier, []).append(RecordRef(identifier, str(hashed)))
        return found

    def _chunks_of(self, items: Sequence[str]) -> Iterator[tuple[str, int, RecordRef]]:
        """Yield the item, the number and the record of each stored chunk of some items."""
        known = frozenset(items)
        for start in itertools.count(0, self._read_rows):
            where: Any = {OBJECT_KEY: {"$in": list(items)}}
            rows = self._metadata(where=where, limit=self._read_rows, offset=start) if items else {}
            for identifier, metadata in rows.items():
                hashed = metadata.get(HASH_KEY)
                if (owner := owner_of(identifier, hashed)) is not None and owner[0] in known:
                    yield *owner, RecordRef(identifier, str(hashed))
            if len(rows) < self._read_rows:
                return


def parts_of(values: Sequence[Any], size: int) -> Iterator[Any]:
    """Yield the values in slices of at most `size`."""
    return (values[start : start + size] for start in range(0, len(values), size))


def _storable(ids: Sequence[str]) -> list[str]:
    """Return the different ids that can be stored; a request for any other id would fail as a whole."""
    return [one for one in dict.fromkeys(ids) if one and string_fault("the id", one) is None]
