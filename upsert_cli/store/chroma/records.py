"""Batch -> Chroma: compares documents with a collection and writes them, finding the rows that cannot be written.

It is meant to run in a process of its own, see `writer`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from upsert_cli.bisect import failing_rows
from upsert_cli.documents.hashing import HASH_KEY, is_chunk, is_same
from upsert_cli.errors import UpsertCliError
from upsert_cli.store.base import (
    Block,
    Comparison,
    Opened,
    QueryHit,
    RecordRef,
    RecordRefPage,
    Stored,
    Target,
    Verdict,
    WriteBatch,
)
from upsert_cli.store.chroma.collection import OpenCollection, retrying_locks, understood
from upsert_cli.store.chroma.faults import is_data_fault, reason
from upsert_cli.store.chroma.place import Place, place_of
from upsert_cli.store.chroma.read import fetch, members_of, nearest, read_block
from upsert_cli.store.chroma.row_faults import row_faults, string_fault
from upsert_cli.store.chroma.stale_chunks import find_stale_chunks, may_have_chunks

if TYPE_CHECKING:
    from upsert_cli.store.base import Vectors


WRITE_ROWS = 512  # rows a call; the index survives kill -9 best with so many, and more gain nothing (measured)
READ_ROWS = 1_000  # rows a call; `get` takes some 5,000 ids at most


class ChromaCollection:
    """The records of a collection that is open for writing."""

    def __init__(self, target: Target, place: Place, collection: OpenCollection, *, unflushed: bool) -> None:
        """Takes over an open collection; use `open`."""
        self._target = target
        self._place = place
        self._collection = collection
        self._quotas = place.quotas
        self._block = self._quotas.most_rows(min(WRITE_ROWS, collection.max_batch))
        self._read_block = self._quotas.most_rows(READ_ROWS)
        self._unflushed = unflushed  # whether rows may be queued that the index files lack
        self._has_chunks: bool | None = None  # None: nobody has looked yet

    @classmethod
    def open(
        cls,
        target: Target,
        place: Place | None = None,
        *,
        unclean: bool = False,
        rows: int | None = None,
        owed: int | None = None,
        owe: Callable[[int | None], None] = lambda _: None,
        told: Callable[[str], None] = lambda _: None,
    ) -> tuple[ChromaCollection, Opened]:
        """Opens the collection, or makes it; see `OpenCollection.open` for what is raised.

        Args:
            target: What to open; a folder is there, and nobody else writes to it.
            place: Where that is, if it is known already.
            unclean: Whether the last writer did not end in order.
            rows: How many are going to be written at most; None: not known.
            owed: The collection's own setting, if that writer could not put it back.
            owe: Called with a setting before it is changed for the time of the load, with None once it is back.
            told: Hears of what is tried again.
        """
        place = place or place_of(target)
        unclean = unclean and not place.is_shared  # how we ended says nothing about a server
        collection = OpenCollection.open(target, place, suspicious=unclean, rows=rows, owed=owed, owe=owe, told=told)
        records = cls(target, place, collection, unflushed=unclean)
        return records, Opened(
            created=collection.created,
            count=collection.count,
            max_batch=records._block,
            warnings=collection.warnings,
            unclean=unclean,
        )

    def close(self) -> None:
        """Flushes the index, so that the next reader opens at once, and closes the collection."""
        try:
            if self._unflushed:
                self._collection.flush()
        except BaseException:
            with suppress(UpsertCliError):  # the first error is the one that counts
                self._collection.close()
            raise
        self._collection.close()

    def abandon(self) -> None:
        """Closes the collection without a flush; all that was written is safe, but the next reader opens slowly."""
        self._collection.close()

    def compare(self, ids: Sequence[str], hashes: Sequence[str], keys: Sequence[Sequence[str]]) -> Comparison:
        """Tells what has to be done about each document.

        Args:
            ids: Of the documents.
            hashes: Their `upsert_hash`, `<text>.<metadata>`.
            keys: The keys of their metadata.
        """
        with understood(self._target):
            stored = dict(self._stored(ids))
        return Comparison(
            verdicts=[_verdict(stored.get(one), hashed) for one, hashed in zip(ids, hashes, strict=True)],
            stale_keys=[tuple(stored.get(one, {}).keys() - own) for one, own in zip(ids, keys, strict=True)],
        )

    def leftovers(self, parts: Mapping[str, int], *, average: bool) -> dict[str, list[RecordRef]]:
        """Returns the records that some items have no longer; see `leftovers.find_leftovers`."""
        chroma = self._collection.chroma
        with understood(self._target):
            if any(parts.values()):
                self._has_chunks = True
            elif self._has_chunks is None:
                self._has_chunks = retrying_locks(lambda: may_have_chunks(chroma))
            if not self._has_chunks:
                return {}
            return retrying_locks(lambda: find_stale_chunks(chroma, parts, average=average))

    def _stored(self, ids: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        # What cannot be an id cannot be stored either, and asking for it would fail for all.
        asked = [one for one in dict.fromkeys(ids) if one and string_fault("the id", one) is None]
        for start in range(0, len(asked), self._read_block):
            part = asked[start : start + self._read_block]
            found = retrying_locks(functools.partial(self._get_metadata, part))
            yield from found

    def _get_metadata(self, ids: list[str]) -> list[tuple[str, dict[str, Any]]]:
        found = self._collection.chroma.get(ids=ids, include=["metadatas"])
        metadatas = found["metadatas"] or []
        return [(one, dict(metadata or {})) for one, metadata in zip(found["ids"], metadatas, strict=True)]

    def read_back(self, *, start: int, rows: int, every: int, identity: str | None) -> Block:
        """Tells what is wrong with a run of records, which may be a shorter one; see `reading_back.read_block`."""
        rows = self._quotas.most_rows(rows)
        with understood(self._target):
            return retrying_locks(
                lambda: read_block(
                    self._target, self._collection.chroma, start=start, rows=rows, every=every, identity=identity
                )
            )

    def fetch(self, ids: list[str] | None, *, start: int, rows: int) -> list[Stored]:
        """Returns the documents and metadata of `ids`, or of `rows` records from `start` on."""
        chroma, step = self._collection.chroma, self._read_block
        if ids is None:
            places = range(start, start + rows, step)
            parts = [
                functools.partial(fetch, chroma, None, start=one, rows=min(step, places.stop - one)) for one in places
            ]
        else:
            parts = [
                functools.partial(fetch, chroma, ids[one : one + step], start=0, rows=0)
                for one in range(0, len(ids), step)
            ]
        with understood(self._target):
            return [record for part in parts for record in retrying_locks(part)]

    def query(self, vector: Vectors, *, rows: int, where: dict[str, Any] | None) -> list[QueryHit]:
        """Returns the `rows` records nearest to a vector, the nearest first; see `reading_back.nearest`."""
        with understood(self._target):
            return retrying_locks(lambda: nearest(self._collection.chroma, vector, rows=rows, where=where))

    def members(self, scope: str, *, start: int, rows: int) -> RecordRefPage:
        """Returns the records of a scope among `rows` records from `start` on, which may be a shorter run."""
        rows = self._quotas.most_rows(rows)
        with understood(self._target):
            return retrying_locks(lambda: members_of(self._collection.chroma, scope, start=start, rows=rows))

    def delete(self, members: Sequence[RecordRef]) -> list[str]:
        """Deletes records, and returns the ids of those that were left since they are not what they were.

        One that is gone already counts as deleted, since the answer to a first try may have been lost.
        """
        self._place.require_space(len(members))
        with understood(self._target):
            stored = dict(self._stored([member.id for member in members]))
            had = [member for member in members if member.id in stored]
            same = [member.id for member in had if stored[member.id].get(HASH_KEY) == member.hash]
            self._unflushed = self._unflushed or bool(same)
            for start in range(0, len(same), self._block):
                part = same[start : start + self._block]
                retrying_locks(functools.partial(self._collection.chroma.delete, ids=part))
                self._collection.wrote(len(part), 0)
        return [member.id for member in had if stored[member.id].get(HASH_KEY) != member.hash]

    def write(self, upserts: WriteBatch, updates: WriteBatch) -> list[tuple[str, str]]:
        """Writes all rows but those that are at fault themselves.

        Args:
            upserts: Records that are new or whose text changed.
            updates: Records of which only the metadata changed.

        Returns:
            The id of each row that was not written, and why, in one line.

        Raises:
            DiskFull: There is no room for them; nothing was written.
            UpsertCliError: Chroma failed for no row's fault; some may be written.
        """
        self._place.require_space(len(upserts.ids) + len(updates.ids))
        with understood(self._target):
            return [*self._write(upserts, self._upsert), *self._write(updates, self._update)]

    def _write(self, rows: WriteBatch, call: Callable[[WriteBatch], None]) -> list[tuple[str, str]]:
        faults = row_faults(rows, self._target, self._quotas)
        good = [place for place in range(len(rows.ids)) if place not in faults]
        self._unflushed = self._unflushed or bool(good)
        for start in range(0, len(good), self._block):
            block = good[start : start + self._block]
            failing = failing_rows(block, _patient(call, rows), is_data_fault=is_data_fault)
            if failing and len(failing) == len(block):
                self._collection.check_takes_any(failing[0][1])
            faults.update((place, f"Chroma rejects it: {reason(error)}") for place, error in failing)
            self._collection.wrote(len(block), rows.size_of(block))
        return [(rows.ids[place], faults[place]) for place in sorted(faults)]

    def _upsert(self, rows: WriteBatch) -> None:
        self._collection.chroma.upsert(
            ids=rows.ids, documents=rows.texts, metadatas=[*rows.metadatas], embeddings=rows.vectors
        )

    def _update(self, rows: WriteBatch) -> None:
        self._collection.chroma.update(ids=rows.ids, metadatas=[*rows.metadatas])


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


def _patient(call: Callable[[WriteBatch], None], rows: WriteBatch) -> Callable[[Sequence[int]], None]:
    """Returns what calls with some of the rows."""
    return lambda part: retrying_locks(functools.partial(call, rows.take(part)))
