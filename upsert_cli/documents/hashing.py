"""A record -> the hash that it carries: what differs of it tells what has to be written.

Two halves in hex, `<text>.<metadata>`. Where an item brings its own vector, the first is `<text>+<vector>`; so is that
of the mean of an item's chunks, with a hash of the whole text. A chunk's ends with `#`. As stored, `~` and a check
digit for each float of the metadata are added, before the `#`.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from upsert_cli.documents.check_digits import check_digits, guesses, has_floats, restored
from upsert_cli.documents.chunks import CHUNK_MARK, is_chunk
from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.json_text import canonical

HASH_KEY = "upsert_hash"
HASH_BYTES = 16  # of 64 that BLAKE2b has; 128 bits make equal hashes of different rows unheard of
MAX_BYTES = 8 << 20  # bytes of a text, and of the rest of a record; what a line of JSONL can hold
FLOAT_MARK = "~"  # before the check digits of the floats
OWN_VECTOR = "+"  # in the first half, before the hash of a vector that is not the model's


def record_hash(
    text: str, metadata: dict[str, Any], *, field: str, identity: str, vector: array[float] | None = None
) -> str:
    """Returns the hash of a record.

    Args:
        text: The document.
        metadata: Without the hash.
        field: The key that the text may stand under in the metadata as well; it is hashed once.
        identity: The model's, and the options of embedding.
        vector: The item's own.

    Raises:
        ItemError: It is too large to be stored.
    """
    own = "" if vector is None else OWN_VECTOR + _digest("own vector", vector.tobytes())
    return f"{_text_hash(text, identity)}{own}.{_metadata_hash(metadata, text, field)}"


def chunk_hash(text: str, metadata: dict[str, Any], *, identity: str, mean_of: str | None = None) -> str:
    """Returns the hash of a chunk of an item.

    Args:
        text: The document.
        metadata: Without the hash.
        identity: The model's.
        mean_of: What the mean of all chunks depends on; None: it is a chunk with a text of its own.

    Raises:
        ItemError: It is too large to be stored.
    """
    own = "" if mean_of is None else OWN_VECTOR + _digest("mean", mean_of.encode())
    return f"{_text_hash(text, identity)}{own}.{_metadata_hash(metadata, text, '')}{CHUNK_MARK}"


def as_stored(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return a record's metadata as it is stored: its hash gets a check digit for each float, if there are any."""
    hashed, digits = metadata.get(HASH_KEY), check_digits(metadata)
    if not digits or not isinstance(hashed, str):
        return metadata
    plain = _without_digits(hashed)
    mark = CHUNK_MARK if is_chunk(plain) else ""
    return metadata | {HASH_KEY: f"{plain.removesuffix(CHUNK_MARK)}{FLOAT_MARK}{digits}{mark}"}


def is_same(stored: str, hashed: str) -> bool:
    """Check that two hashes are of the same record; one of them, or both, may be without check digits."""
    return stored == hashed or _without_digits(stored) == _without_digits(hashed)


def _without_digits(hashed: str) -> str:
    before, mark, after = hashed.partition(FLOAT_MARK)
    return before + (CHUNK_MARK if mark and is_chunk(after) else "")


def exact(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored record's metadata with its floats as they were before Chroma stored them."""
    digits = str(metadata.get(HASH_KEY, "")).partition(FLOAT_MARK)[2].removesuffix(CHUNK_MARK)
    return restored(metadata, digits) if digits else dict(metadata)


def has_own_vector(upsert_hash: object) -> bool:
    """Tells by a stored record's hash whether its vector came with its item, and no model can make it again."""
    return isinstance(upsert_hash, str) and OWN_VECTOR in upsert_hash


def stored_fault(text: str, metadata: Mapping[str, Any], identity: str) -> str | None:
    """Returns what of a stored record is not as its hash says, in one line; None if all is.

    Args:
        text: The document.
        metadata: With `upsert_hash`.
        identity: Of the recipe that it was made with.
    """
    hashed = metadata.get(HASH_KEY)
    if not isinstance(hashed, str):
        return f"it has no {HASH_KEY}"
    own = {key: value for key, value in exact(metadata).items() if key != HASH_KEY}
    of_text, _, of_metadata = _without_digits(hashed).removesuffix(CHUNK_MARK).partition(".")
    try:
        # The vector is left out: an index with the cosine keeps it at another length.
        if _text_hash(text, identity) != of_text.partition(OWN_VECTOR)[0]:
            return f"its document is not the one of its {HASH_KEY}"
        if of_metadata not in _metadata_hashes(own, text) and not (
            FLOAT_MARK not in hashed and _may_be_rounded(own, text, of_metadata)
        ):
            return f"its metadata is not that of its {HASH_KEY}"
    except ItemError as error:
        return error.detail
    return None


def _may_be_rounded(metadata: dict[str, Any], text: str, of_metadata: str) -> bool:
    """Check that a record without check digits may differ from its hash by no more than what Chroma rounds."""
    if not has_floats(metadata):
        return False
    tried = [of_metadata in _metadata_hashes(guess, text) for guess in guesses(metadata)]
    return any(tried) or not tried  # with many floats, the hash says nothing


def stored_hash(text: str, metadata: Mapping[str, Any], identity: str) -> str:
    """Returns the hash that a stored record should have.

    Raises:
        ItemError: It is too large to have one.
    """
    own = {key: value for key, value in metadata.items() if key != HASH_KEY}
    mark = CHUNK_MARK if is_chunk(metadata.get(HASH_KEY)) else ""
    return f"{_text_hash(text, identity)}.{next(_metadata_hashes(own, text))}{mark}"


def _metadata_hashes(metadata: dict[str, Any], text: str) -> Iterator[str]:
    """Yields the hash for each field that the text may have come from, the likeliest first."""
    names = sorted((name for name, value in metadata.items() if value == text), key="text".__ne__)
    for name in (*names, ""):
        yield _metadata_hash(metadata, text, name)


def _text_hash(text: str, identity: str) -> str:
    data = text.encode()
    if len(data) > MAX_BYTES:
        _refuse(f"the text has {len(data)} bytes, {MAX_BYTES} are allowed")
    return _digest(identity, data)


def _metadata_hash(metadata: dict[str, Any], text: str, field: str) -> str:
    """Hashes what the text's hash does not cover: where it is the value of a key, the key's name stands for it."""
    if metadata.get(field) == text:
        metadata = metadata.copy()
        del metadata[field]
    else:
        field = ""
    data = canonical(metadata)
    if len(data) > MAX_BYTES:
        _refuse(f"the metadata has {len(data)} bytes as JSON, {MAX_BYTES} are allowed")
    return _digest(field, data)


def _digest(purpose: str, data: bytes) -> str:
    hasher = _hasher(purpose).copy()
    hasher.update(data)
    return hasher.hexdigest()


@lru_cache(maxsize=64)
def _hasher(purpose: str) -> hashlib.blake2b:
    """Returns a hash to copy, which costs half of making one; its values are its purpose's alone."""
    person = hashlib.blake2b(purpose.encode(), digest_size=hashlib.blake2b.PERSON_SIZE).digest()
    return hashlib.blake2b(digest_size=HASH_BYTES, person=person)


def _refuse(detail: str) -> None:
    raise ItemError(stage=Stage.READING, detail=detail)
