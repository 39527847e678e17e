"""The store in Chroma as a writer: records, and the collection as a whole.

Rows that Chroma would reject, change silently or be poisoned by are found before they are sent to it.
The store runs in a process of its own; see `process`.
"""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from upsert_cli.bisect import failing_rows
from upsert_cli.documents.hashing import HASH_KEY, has_own_vector
from upsert_cli.errors import UpsertCliError
from upsert_cli.store.base import RecordRef, WriteBatch
from upsert_cli.store.chroma.cosine_vectors import to_be_returned
from upsert_cli.store.chroma.faults import is_data_fault, reason, retrying_locks, string_fault, understood
from upsert_cli.store.chroma.queries import ChromaReader, parts_of
from upsert_cli.store.folder import unusable
from upsert_cli.store.stamp import dimension_mismatch
from upsert_cli.store.target import Target

PROBE_ID = "upsert-cli-probe"  # an id that is never stored
WRITE_ROWS = 512  # rows a call; the index survives kill -9 best with this many, and more gain nothing (measured)
# Some rows are not rejected but queued, and then fail at every later call on the collection, for good. The engine's
# limits are 5,460 keys, some 6,000 values in all lists of a row, and 32,766 removed keys; ours are far below.
MAX_KEYS = 1_000
MAX_LIST_VALUES = 1_000
MAX_REMOVED_KEYS = 10_000
INT64 = range(-(2**63), 2**63)  # Chroma turns larger integers into floats silently
KEY_CHARACTERS = 60  # characters of a key in a reason
# Quotas of Chroma Cloud, by its documentation (November 2026): https://docs.trychroma.com/cloud/quotas-limits
CLOUD_ID_BYTES = 128
CLOUD_TEXT_BYTES = 16_384
CLOUD_KEYS = 32  # of a record's metadata
CLOUD_KEY_BYTES = 36
CLOUD_VALUE_BYTES = 4_096


class ChromaStore(ChromaReader):
    """An open collection whose records are read and written; see `base.Store`."""

    def delete(self, members: Sequence[RecordRef]) -> list[str]:
        """Delete records that have not changed."""
        self._require_space(len(members))
        stored = self._metadata_of([member.id for member in members])
        had = [member for member in members if member.id in stored]
        same = [member.id for member in had if stored[member.id].get(HASH_KEY) == member.hash]
        self._unflushed = self._unflushed or bool(same)
        for part in parts_of(same, self._write_rows):
            self._call(self._chroma.delete, ids=part)
            self._wrote(len(part), 0)
        return [member.id for member in had if stored[member.id].get(HASH_KEY) != member.hash]

    def write(self, batch: WriteBatch) -> list[tuple[str, str]]:
        """Write all rows except those that are at fault themselves."""
        self._require_space(len(batch.ids))
        faults = _row_faults(batch, self._target, in_cloud=self._in_cloud)
        good = [row for row in range(len(batch.ids)) if row not in faults]
        batch = self._as_returned(batch)
        self._unflushed = self._unflushed or bool(good)
        with understood(self._target):
            for part in parts_of(good, self._write_rows):
                failing = failing_rows(
                    part, lambda rows: retrying_locks(self._writing(batch.take(rows))), is_data_fault=is_data_fault
                )
                if failing and len(failing) == len(part):
                    self._check_takes_any(failing[0][1])
                faults.update((row, f"Chroma rejects it: {reason(error)}") for row, error in failing)
                self._wrote(len(part), batch.characters(part))
        return [(batch.ids[row], faults[row]) for row in sorted(faults)]

    def _require_space(self, rows: int) -> None:
        if self._index is not None:
            self._index.require_space(rows)

    def _wrote(self, rows: int, characters: int) -> None:
        if self._queue is not None:
            self._queue.wrote(rows, characters)

    def _check_takes_any(self, error: BaseException) -> None:
        """Check that Chroma takes a harmless record after an error with which each row failed.

        Raises:
            UpsertCliError: Chroma refuses the harmless record too, so no row is to blame.
        """
        import numpy as np

        vectors = np.full((1, self._target.model.dimension), 0.5, dtype=np.float32)
        try:
            # An update of a missing id takes the same way as a row, and changes nothing.
            self._chroma.update(ids=[PROBE_ID], embeddings=vectors, documents=["probe"], metadatas=[{"probe": True}])
        except UpsertCliError:
            raise  # the server failed, which says nothing about the record
        except Exception as also:
            remedy = "try another version of chromadb, then restart the task"
            what = f"Chroma refuses any record: {reason(error)}"
            raise unusable(self._target.path, reason=what, remedy=remedy) from also

    @property
    def _write_rows(self) -> int:
        return self._within_quota(min(WRITE_ROWS, self._max_batch))

    def _as_returned(self, batch: WriteBatch) -> WriteBatch:
        """Return a batch whose copied vectors, and those that items bring, come back bit by bit from a cosine index."""
        if batch.vectors is None or not self._is_cosine or self._in_cloud:
            return batch
        is_kept = self._target.space is not None
        rows = [
            row for row, metadata in enumerate(batch.metadatas) if is_kept or has_own_vector(metadata.get(HASH_KEY))
        ]
        if not rows:
            return batch
        vectors = batch.vectors.copy()
        vectors[rows] = to_be_returned(vectors[rows])
        return replace(batch, vectors=vectors)

    def _writing(self, rows: WriteBatch) -> Callable[[], None]:
        """Return the call of Chroma that writes all of the rows."""
        metadatas = cast("list[Mapping[str, Any]]", rows.metadatas)
        if rows.vectors is None:
            return functools.partial(self._chroma.update, ids=rows.ids, metadatas=metadatas)
        documents: Any = self._documents(rows)
        return functools.partial(
            self._chroma.upsert, ids=rows.ids, documents=documents, metadatas=metadatas, embeddings=rows.vectors
        )

    def _documents(self, rows: WriteBatch) -> list[str | None]:
        """Return the documents to write, with an empty one where one goes: for None, Chroma would keep the old one."""
        lacking = [one for one, text in zip(rows.ids, rows.texts, strict=True) if text is None]
        replaced = {record.id for record in self.fetch(lacking) if record.text} if lacking else set()
        return ["" if one in replaced else text for one, text in zip(rows.ids, rows.texts, strict=True)]

    # -- the collection as a whole -------------------------------------------------------------------------------------

    def rename(self, name: str, *, aside: str | None) -> int:
        """Rename the collection, after the one that has the name now."""
        if aside is not None:
            self._rename(name, aside)
        try:
            self._rename(self._target.collection, name)
        except BaseException:
            if aside is not None:
                with suppress(Exception):  # the first error counts, and another call completes the renaming
                    self._rename(aside, name)
            raise
        return self.opened.count

    def _rename(self, name: str, to: str) -> None:
        self._call(self._get(name).modify, name=to)
        if self._lease is not None and (owed := self._lease.holder.owed.get(name)) is not None:
            self._lease.owe({to: owed, name: None})

    def drop(self) -> int:
        """Delete the collection, with the files of its index; nothing is left to flush or to restore."""
        index = None if self._index is None else self._index.path()
        self._call(self._client.delete_collection, self._target.collection)
        if index is not None:
            shutil.rmtree(index, ignore_errors=True)
        self._queue = None
        if self._lease is not None:
            with understood(self._target):  # the disk of the lock file may be full
                self._lease.owe({self._target.collection: None})
        return self.opened.count


def _row_faults(rows: WriteBatch, target: Target, *, in_cloud: bool) -> dict[int, str]:
    """Return one line of reason for each faulty row, by its index.

    Raises:
        Refusal: The vectors are not of the collection's dimension.
    """
    texts = [text or "" for text in rows.texts] if rows.vectors is not None else [""] * len(rows.ids)
    faults = {
        number: fault
        for number, row in enumerate(zip(rows.ids, texts, rows.metadatas, strict=True))
        if (fault := _row_fault(*row) or (_cloud_fault(*row) if in_cloud else None)) is not None
    }
    if rows.vectors is not None and len(rows.ids):
        import numpy as np

        if rows.vectors.shape[1] != target.model.dimension:
            raise dimension_mismatch(target, had=target.model.dimension, asked=rows.vectors.shape[1])
        for number in np.flatnonzero(~np.isfinite(rows.vectors).all(axis=1)):
            faults.setdefault(int(number), "its vector has a number that is not finite")
        for number in np.flatnonzero(~rows.vectors.any(axis=1)):
            faults.setdefault(int(number), "its vector is all zeros, which no other is near to")
    return faults


def _cloud_fault(identifier: str, text: str, metadata: Mapping[str, Any]) -> str | None:
    """Return one line of reason why a row is over the quotas of Chroma Cloud, or None."""
    values = {key: value for key, value in metadata.items() if value is not None}
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    sizes = (
        ("the id has", _bytes(identifier), "bytes", CLOUD_ID_BYTES),
        ("the text has", _bytes(text), "bytes", CLOUD_TEXT_BYTES),
        ("the metadata has", len(values), "keys", CLOUD_KEYS),
        *((f"the metadata key {_short(key)} has", _bytes(key), "bytes", CLOUD_KEY_BYTES) for key in values),
        *((f"metadata {_short(key)} has", _bytes(value), "bytes", CLOUD_VALUE_BYTES) for key, value in texts.items()),
    )
    over = (
        f"{what} {size:,} {unit}, and the cloud takes {limit:,}" for what, size, unit, limit in sizes if size > limit
    )
    return next(over, None)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _row_fault(identifier: Any, text: Any, metadata: Any) -> str | None:
    """Return one line of reason why Chroma cannot store a row, or None."""
    return (
        string_fault("the id", identifier)
        or (None if identifier else "the id is empty")
        or string_fault("the text", text)
        or _metadata_fault(metadata)
    )


def _metadata_fault(metadata: Any) -> str | None:
    if not isinstance(metadata, Mapping) or not metadata:
        return "the metadata is empty" if isinstance(metadata, Mapping) else "the metadata is not an object"
    removed = sum(value is None for value in metadata.values())
    if len(metadata) - removed > MAX_KEYS:
        return f"the metadata has {len(metadata) - removed} keys, and {MAX_KEYS} are the limit"
    if removed > MAX_REMOVED_KEYS:
        return f"{removed} metadata keys are to be removed, and {MAX_REMOVED_KEYS} are the limit"
    listed = 0
    for key, value in metadata.items():
        if fault := _key_fault(key) or _value_fault(key, value):
            return fault
        listed += len(value) if isinstance(value, list) else 0
    if listed > MAX_LIST_VALUES:
        return f"the lists in the metadata have {listed} values, and {MAX_LIST_VALUES} are the limit"
    return None


def _key_fault(key: Any) -> str | None:
    if not isinstance(key, str):
        return f"a metadata key is of type {type(key).__name__}, not a string"
    if not key or key[0] in "#$" or key.startswith("chroma:"):
        return f"the metadata key {_short(key)} is reserved by Chroma" if key else "a metadata key is empty"
    return string_fault("a metadata key", key)


def _value_fault(key: str, value: Any) -> str | None:
    if isinstance(value, list):
        if not value:
            return f"metadata {_short(key)} is an empty list"
        if len({type(part) for part in value}) > 1 or not isinstance(value[0], str | int | float):
            return f"metadata {_short(key)} is a list of other than strings, numbers or booleans of one kind"
        return next((fault for part in value if (fault := _scalar_fault(key, part))), None)
    return None if value is None else _scalar_fault(key, value)


def _scalar_fault(key: str, value: Any) -> str | None:
    if isinstance(value, str):
        return string_fault(f"metadata {_short(key)}", value)
    if isinstance(value, float):
        return None if math.isfinite(value) else f"metadata {_short(key)} is {value}, not a finite number"
    if isinstance(value, int):
        return None if value in INT64 else f"metadata {_short(key)} does not fit into 64 bits"
    return f"metadata {_short(key)} is of type {type(value).__name__}, which Chroma does not store"


def _short(key: str) -> str:
    return repr(key if len(key) <= KEY_CHARACTERS else f"{key[:KEY_CHARACTERS]}...")
