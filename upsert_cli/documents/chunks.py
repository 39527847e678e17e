"""How the chunks of a split item are told from other records: by their ids, and by a mark in their hashes.

Chunk 0 of the item `a` is the record `a#0`, the mean of its chunks `a#average`. With `--split` every item becomes
chunks, a short one just chunk 0: so an id with a `#` of its own (`a#0`, whose chunk 0 is `a#0#0`) is never mistaken.
"""

from __future__ import annotations

from typing import NamedTuple

SEPARATOR = "#"
AVERAGE = "average"
AVERAGE_NUMBER = -1
OBJECT_KEY, CHUNK_KEY = "object_id", "part"  # of a chunk's metadata
CHUNK_MARK = "#"  # at the end of a chunk's hash, by which it is told from an item whose own id looks like that


class Chunk(NamedTuple):
    """Which chunk of its item a document is."""

    number: int
    """From 0; `AVERAGE_NUMBER` for the mean of all chunks."""

    is_last: bool
    """No chunk comes behind it; never true for the mean."""


def chunk_id(object_id: str, number: int) -> str:
    """Returns the id of a chunk's record."""
    return f"{object_id}{SEPARATOR}{chunk_name(number)}"


def chunk_name(number: int) -> int | str:
    """Returns what a chunk's metadata calls it."""
    return AVERAGE if number == AVERAGE_NUMBER else number


def is_chunk(upsert_hash: object) -> bool:
    """Tells by a stored record's hash whether it is a chunk of an item."""
    return isinstance(upsert_hash, str) and upsert_hash.endswith(CHUNK_MARK)


def owner_of(identifier: str) -> tuple[str, int]:
    """Returns the item and the number of a chunk, by the id of its record."""
    object_id, _, name = identifier.rpartition(SEPARATOR)
    return object_id, AVERAGE_NUMBER if name == AVERAGE else int(name)
