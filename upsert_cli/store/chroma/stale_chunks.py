"""Items and how many parts they have now -> the records that are still of them and should be no longer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from upsert_cli.documents.chunking import AVERAGE_NUMBER, CHUNK_KEY, OBJECT_KEY, owner_of
from upsert_cli.documents.hashing import HASH_KEY, is_chunk
from upsert_cli.store.base import RecordRef
from upsert_cli.store.chroma.row_faults import string_fault

if TYPE_CHECKING:
    from chromadb.api.models.Collection import Collection

FETCH_ROWS = 1_000  # rows a call; `get` takes some 5,000 ids at most


def find_stale_chunks(chroma: Collection, parts: Mapping[str, int], *, average: bool) -> dict[str, list[RecordRef]]:
    """Returns, by item, the records that are of it and that it has no longer; the last part first.

    Args:
        chroma: Open.
        parts: How many parts each item has now; 0: it is one record.
        average: Whether items of parts have the mean of them.
    """
    found: dict[str, list[RecordRef]] = {}
    # What cannot be an id cannot be stored either, and asking for it would fail for all.
    asked = [one for one in parts if string_fault("the id", one) is None]
    for object_id, number, member in sorted(_parts_of(chroma, asked), reverse=True):
        is_kept = (average and parts[object_id]) if number == AVERAGE_NUMBER else number < parts[object_id]
        if not is_kept:
            found.setdefault(object_id, []).append(member)
    for member in _wholes(chroma, [one for one in asked if parts[one]]):
        found.setdefault(member.id, []).append(member)
    return found


def may_have_chunks(chroma: Collection) -> bool:
    """Tells whether a collection may have parts of items: keys of those names may also be of an item's own."""
    where: Any = {"$and": [{CHUNK_KEY: 0}, {OBJECT_KEY: {"$ne": ""}}]}
    return bool(chroma.get(where=where, limit=1, include=[])["ids"])


def _parts_of(chroma: Collection, items: Sequence[str]) -> Iterator[tuple[str, int, RecordRef]]:
    """Yields item, number and record of all parts that are stored of some items."""
    known = frozenset(items)
    where: Any = {OBJECT_KEY: {"$in": list(items)}}
    for start in itertools.count(0, FETCH_ROWS):
        rows = _hashes(chroma, where=where, limit=FETCH_ROWS, offset=start) if items else {}
        for identifier, hashed in rows.items():
            if is_chunk(hashed) and (owner := owner_of(identifier))[0] in known:
                yield *owner, RecordRef(identifier, str(hashed))
        if len(rows) < FETCH_ROWS:
            return


def _wholes(chroma: Collection, items: Sequence[str]) -> Iterator[RecordRef]:
    """Yields the items that are stored as one record."""
    for start in range(0, len(items), FETCH_ROWS):
        for identifier, hashed in _hashes(chroma, ids=list(items[start : start + FETCH_ROWS])).items():
            if hashed is not None and not is_chunk(hashed):
                yield RecordRef(identifier, str(hashed))


def _hashes(chroma: Collection, **which: Any) -> dict[str, object]:
    found = chroma.get(**which, include=["metadatas"])
    metadatas = found["metadatas"] or []
    return {one: (metadata or {}).get(HASH_KEY) for one, metadata in zip(found["ids"], metadatas, strict=True)}
