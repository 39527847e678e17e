"""The store in Chroma: writes records to a collection, and finds the rows that cannot be written.

It runs in a process of its own; see `process`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from upsert_cli.bisect import failing_rows
from upsert_cli.documents.hashing import HASH_KEY
from upsert_cli.store.base import RecordRef, WriteBatch
from upsert_cli.store.chroma.collection import OpenCollection, retrying_locks
from upsert_cli.store.chroma.faults import is_data_fault, reason, understood
from upsert_cli.store.chroma.queries import ChromaReader, parts_of
from upsert_cli.store.chroma.row_limits import row_faults

WRITE_ROWS = 512  # rows a call; the index survives kill -9 best with this many, and more gain nothing (measured)


class ChromaStore(ChromaReader):
    """The records of an open collection; see `base.Store`."""

    def __init__(self, collection: OpenCollection) -> None:
        """Take over an open collection."""
        super().__init__(collection)
        self._write_rows = min(WRITE_ROWS, collection.max_batch, collection.location.most_rows)
        self._unflushed = collection.opened.unclean  # whether rows may be queued that the index files lack

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

    def delete(self, members: Sequence[RecordRef]) -> list[str]:
        """Delete records that have not changed."""
        self._collection.location.require_space(len(members))
        stored = self._metadata_of([member.id for member in members])
        had = [member for member in members if member.id in stored]
        same = [member.id for member in had if stored[member.id].get(HASH_KEY) == member.hash]
        self._unflushed = self._unflushed or bool(same)
        for part in parts_of(same, self._write_rows):
            self._ask(lambda chroma, ids: chroma.delete(ids=ids), part)
            self._collection.wrote(len(part), 0)
        return [member.id for member in had if stored[member.id].get(HASH_KEY) != member.hash]

    def drop(self) -> int:
        """Delete the collection itself."""
        self._collection.drop()
        self._unflushed = False
        return self._collection.count

    def write(self, batch: WriteBatch) -> list[tuple[str, str]]:
        """Write all rows except those that are at fault themselves."""
        collection = self._collection
        collection.location.require_space(len(batch.ids))
        faults = row_faults(batch, collection.target, in_cloud=collection.location.in_cloud)
        good = [row for row in range(len(batch.ids)) if row not in faults]
        self._unflushed = self._unflushed or bool(good)
        with understood(collection.target):
            for part in parts_of(good, self._write_rows):
                failing = failing_rows(
                    part, lambda rows: retrying_locks(self._writing(batch.take(rows))), is_data_fault=is_data_fault
                )
                if failing and len(failing) == len(part):
                    collection.check_takes_any(failing[0][1])
                faults.update((row, f"Chroma rejects it: {reason(error)}") for row, error in failing)
                collection.wrote(len(part), batch.characters(part))
        return [(batch.ids[row], faults[row]) for row in sorted(faults)]

    def _writing(self, rows: WriteBatch) -> Callable[[], None]:
        """Return the call that writes all of the rows."""
        chroma, metadatas = self._collection.chroma, cast("list[Mapping[str, Any]]", rows.metadatas)
        if rows.vectors is None:
            return functools.partial(chroma.update, ids=rows.ids, metadatas=metadatas)
        return functools.partial(
            chroma.upsert, ids=rows.ids, documents=rows.texts, metadatas=metadatas, embeddings=rows.vectors
        )
