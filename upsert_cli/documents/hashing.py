"""The hash in the metadata of a record, whose differing half decides how the record is written, and the ids of chunks.

A hash has two halves in hex, `<text>.<metadata>`. For an item that brings its own vector, the first half is
`<text>+<vector>`; for the mean of an item's chunks, `<text>+<hash of the whole text>`. The hash of a chunk ends with
`>#` if another chunk follows, and with `$#` if none does; the hash of the mean ends with `#`. A stored hash has `~` and
a check digit for each float of the metadata before these marks.

Chunk 0 of the item `a` is the record `a#0`, the mean of its chunks `a#average`. With `--split` every item becomes
chunks, a short one just chunk 0, so an item whose own id is `a#0` is never mistaken: its chunk 0 is `a#0#0`.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from upsert_cli.documents.check_digits import check_digits, restored
from upsert_cli.errors import ItemError
from upsert_cli.sources.json_text import canonical

HASH_KEY = "upsert_hash"
HASH_BYTES = 16  # of 64 that BLAKE2b has; at 128 bits, equal hashes of different rows are practically impossible
MAX_BYTES = 8 << 20  # bytes of a text, and of the rest of a record; the limit of a line of JSONL
CHUNK_MARK = "#"  # at the end; distinguishes a chunk from an item whose own id looks like a chunk's
FOLLOWED_MARK, LAST_MARK = ">", "$"  # before the mark of a chunk, which another chunk of its item follows or not
FLOAT_MARK = "~"  # before the check digits of the floats
OWN_VECTOR = "+"  # in the first half, before the hash of a vector that is not the model's

SEPARATOR = "#"  # in a chunk's id, before its number
AVERAGE = "average"
AVERAGE_NUMBER = -1  # of the mean of all chunks, which are numbered from 0
OBJECT_KEY, CHUNK_KEY = "object_id", "part"  # of a chunk's metadata
_NUMBER = re.compile(r"[0-9]{1,18}")  # of a chunk; Python refuses to read one of thousands of digits


def record_hash(
    text: str, metadata: dict[str, Any], *, field: str, identity: str, vector: array[float] | None = None
) -> str:
    """Return the hash of a record.

    Args:
        text: The document.
        metadata: Without the hash.
        field: The metadata key that may hold the text as well, which is hashed once.
        identity: The identity of the model and the options of embedding.
        vector: The item's own vector.

    Raises:
        ItemError: The record is too large to be stored.
    """
    own = "" if vector is None else OWN_VECTOR + _digest("own vector", vector.tobytes())
    return f"{_text_hash(text, identity)}{own}.{_metadata_hash(metadata, text, field)}"


def chunk_hash(
    text: str, metadata: dict[str, Any], *, identity: str, is_last: bool | None, mean_of: str | None = None
) -> str:
    """Return the hash of a chunk.

    Args:
        text: The document.
        metadata: Without the hash.
        identity: The identity of the model and the options of embedding.
        is_last: No chunk of the item follows; None for the mean of all chunks.
        mean_of: The text that the mean depends on; for a chunk, the item's own vector in hex, if it has one.
    """
    own = "" if mean_of is None else OWN_VECTOR + _digest("mean", mean_of.encode())
    place = "" if is_last is None else LAST_MARK if is_last else FOLLOWED_MARK
    return f"{_text_hash(text, identity)}{own}.{_metadata_hash(metadata, text, '')}{place}{CHUNK_MARK}"


def copied_hash(stored: str, text: str, metadata: dict[str, Any], *, field: str, identity: str) -> str | None:
    """Return the hash for the copy of a record with its vector; None if another text or model made that vector.

    The hash is the one of a record whose vector the model has just made, so a later load of the item changes nothing.

    Args:
        stored: The record's own hash.
        text: The document of the copy.
        metadata: Of the copy, without the hash.
        field: See `record_hash`.
        identity: See `record_hash`.
    """
    halves, _, marks = _parts(stored)
    of_text = halves.partition(".")[0]
    if of_text.partition(OWN_VECTOR)[0] != _text_hash(text, identity):
        return None
    return f"{of_text}.{_metadata_hash(metadata, text, '' if marks else field)}{marks}"


def as_stored(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return a record's metadata for the store: with a check digit in its hash for each float."""
    hashed, digits = metadata.get(HASH_KEY), check_digits(metadata)
    if not digits or not isinstance(hashed, str):
        return metadata
    halves, _, marks = _parts(hashed)
    return metadata | {HASH_KEY: f"{halves}{FLOAT_MARK}{digits}{marks}"}


def is_same(stored: str, hashed: str) -> bool:
    """Check that two hashes are equal except for their check digits."""
    return _without_digits(stored) == _without_digits(hashed)


def _without_digits(hashed: str) -> str:
    halves, _, marks = _parts(hashed)
    return halves + marks


def _parts(hashed: str) -> tuple[str, str, str]:
    """Return the two halves of a hash, its check digits, and the marks of a chunk."""
    unmarked = hashed.rstrip(FOLLOWED_MARK + LAST_MARK + CHUNK_MARK)
    halves, _, digits = unmarked.partition(FLOAT_MARK)
    return halves, digits, hashed[len(unmarked) :]


def with_exact_floats(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored record's metadata with its floats as they were before Chroma stored them."""
    _, digits, _ = _parts(str(metadata.get(HASH_KEY, "")))
    return restored(metadata, digits) if digits else dict(metadata)


def has_own_vector(upsert_hash: object) -> bool:
    """Check by a stored record's hash that its vector came with its item; no model can compute it again."""
    return isinstance(upsert_hash, str) and OWN_VECTOR in upsert_hash


def stored_fault(text: str, metadata: Mapping[str, Any], identity: str) -> str | None:
    """Return in one line how a stored record differs from its hash, or None.

    Args:
        text: The document.
        metadata: With the hash.
        identity: See `record_hash`.
    """
    hashed = metadata.get(HASH_KEY)
    if not isinstance(hashed, str):
        return f"it has no {HASH_KEY}"
    own = {key: value for key, value in with_exact_floats(metadata).items() if key != HASH_KEY}
    of_text, _, of_metadata = _parts(hashed)[0].partition(".")
    try:
        # Without the vector, since a cosine index stores it with another length.
        if _text_hash(text, identity) != of_text.partition(OWN_VECTOR)[0]:
            return f"its document is not the one of its {HASH_KEY}"
        if of_metadata not in _metadata_hashes(own, text):
            return f"its metadata is not that of its {HASH_KEY}"
    except ItemError as error:
        return error.detail
    return None


def stored_hash(text: str, metadata: Mapping[str, Any], identity: str) -> str:
    """Return the hash that a stored record should have.

    Raises:
        ItemError: The record is too large to have a hash.
    """
    own = {key: value for key, value in metadata.items() if key != HASH_KEY}
    _, _, marks = _parts(str(metadata.get(HASH_KEY, "")))
    return f"{_text_hash(text, identity)}.{next(_metadata_hashes(own, text))}{marks}"


def _metadata_hashes(metadata: dict[str, Any], text: str) -> Iterator[str]:
    """Yield the hash for each field that the text may have come from, the likeliest first."""
    names = sorted((name for name, value in metadata.items() if value == text), key="text".__ne__)
    for name in (*names, ""):
        yield _metadata_hash(metadata, text, name)


def _text_hash(text: str, identity: str) -> str:
    data = text.encode()
    if len(data) > MAX_BYTES:
        raise ItemError(detail=f"the text has {len(data)} bytes, {MAX_BYTES} are allowed")
    return _digest(identity, data)


def _metadata_hash(metadata: dict[str, Any], text: str, field: str) -> str:
    """Return the hash of a record without its text; of the field that holds the text, only the name is hashed."""
    if metadata.get(field) == text:
        metadata = metadata.copy()
        del metadata[field]
    else:
        field = ""
    data = canonical(metadata)
    if len(data) > MAX_BYTES:
        raise ItemError(detail=f"the metadata has {len(data)} bytes as JSON, {MAX_BYTES} are allowed")
    return _digest(field, data)


def _digest(purpose: str, data: bytes) -> str:
    hasher = _hasher(purpose).copy()
    hasher.update(data)
    return hasher.hexdigest()


@lru_cache(maxsize=64)
def _hasher(purpose: str) -> hashlib.blake2b:
    """Return a hasher to copy, at half the cost of a new one; equal data has other hashes for another purpose."""
    person = hashlib.blake2b(purpose.encode(), digest_size=hashlib.blake2b.PERSON_SIZE).digest()
    return hashlib.blake2b(digest_size=HASH_BYTES, person=person)


# -- chunks -------------------------------------------------------------------------------------------------------


def chunk_id(object_id: str, number: int) -> str:
    """Return the id of a chunk's record."""
    return f"{object_id}{SEPARATOR}{chunk_name(number)}"


def chunk_name(number: int) -> int | str:
    """Return the value of a chunk's metadata key `part`."""
    return AVERAGE if number == AVERAGE_NUMBER else number


def is_chunk(upsert_hash: object) -> bool:
    """Check by a stored record's hash that it is a chunk of an item."""
    return isinstance(upsert_hash, str) and upsert_hash.endswith(CHUNK_MARK)


def is_last_chunk(upsert_hash: object) -> bool:
    """Check by a stored record's hash that it is the last chunk of an item."""
    return isinstance(upsert_hash, str) and upsert_hash.endswith(LAST_MARK + CHUNK_MARK)


def owner_of(identifier: str, upsert_hash: object) -> tuple[str, int] | None:
    """Return the item's id and the number of a chunk, by the id and the hash of its record; None if it is no chunk."""
    if not is_chunk(upsert_hash):
        return None
    object_id, separator, name = identifier.rpartition(SEPARATOR)
    if name == AVERAGE and separator:
        return object_id, AVERAGE_NUMBER
    return (object_id, int(name)) if separator and _NUMBER.fullmatch(name) else None
