"""Item -> Document: the text to embed, flat metadata that Chroma stores unchanged, and a hash of both.

With a splitter an item becomes several documents, its chunks. Rows that Chroma would refuse or silently change, or that
would damage it, are rejected here, one by one, before any call.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from upsert_cli.documents.hashing import (
    AVERAGE_NUMBER,
    CHUNK_KEY,
    HASH_KEY,
    OBJECT_KEY,
    chunk_hash,
    chunk_id,
    chunk_name,
    copied_hash,
    record_hash,
)
from upsert_cli.documents.metadata import Value, metadata_of
from upsert_cli.documents.payload import read_payload
from upsert_cli.documents.recipe import Recipe
from upsert_cli.documents.splitter import Splitter
from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.item import Item
from upsert_cli.sources.json_text import canonical

MAX_CHUNK_METADATA = 64 << 10  # bytes as JSON of the metadata that every chunk of an item repeats
NUMBER_SIZE = 36  # bytes of a number in the list that it was read as, and as 32 bits


class Document(NamedTuple):
    """One record before it is stored; a tuple, since every row makes one."""

    id: str
    text: str
    """Possibly empty for an item that brings its vector; see `has_text`."""

    metadata: dict[str, Value]
    """The flat payload, `upsert_scope` if there is one, and `upsert_hash`."""

    upsert_hash: str
    """Two hashes in hex, `<text>.<metadata>`; the half that differs decides how the record is written."""

    item: Item

    converted: dict[str, str]
    """The kind that each changed value had, such as `a list` that became JSON text, by its metadata key."""

    vector: array[float] | None = None
    """The item's own vector, of 32-bit floats; None: the text is to be embedded."""

    number: int | None = None
    """The number of the chunk, from 0; `AVERAGE_NUMBER` for the mean of all chunks; None for a whole item."""

    is_last_chunk: bool = True
    """No other chunk of the item follows; False for the mean."""

    has_text: bool = True
    """The record gets a document; False for an item that brings its vector and has no text."""

    @property
    def is_average(self) -> bool:
        """Check that this is the mean of its item's chunks."""
        return self.number == AVERAGE_NUMBER

    @property
    def is_first_chunk(self) -> bool:
        """Check that this is the first chunk of its item, or the whole item."""
        return not self.number

    @property
    def size(self) -> int:
        """Return the approximate bytes of memory."""
        size_of_vector = 0 if self.vector is None else NUMBER_SIZE * len(self.vector)
        return len(self.text) + size_of(self.metadata) + size_of_vector


def size_of(value: object) -> int:
    """Return the number of characters in all strings of a value; the rest is small in comparison."""
    if type(value) is list:
        return sum(map(size_of, value))
    if type(value) is not dict:
        return len(value) if isinstance(value, str | bytes) else 0
    size = 0
    for inner in value.values():
        kind = type(inner)  # compared here, since a call for every value of every row costs too much
        if kind is str or kind is bytes:
            size += len(inner)
        elif kind is dict or kind is list:
            size += size_of(inner)
    return size


def make_document(item: Item, recipe: Recipe) -> Document:
    """Return the document of an item that is not split.

    Raises:
        ItemError: Its text is missing or blank, its vector is not usable, or Chroma cannot hold its metadata.
    """
    payload, found, vector = read_payload(item, recipe)
    text = found or ""
    metadata, converted = metadata_of(payload, item, recipe)
    field, identity, stored = recipe.text_fields[0], recipe.identity, item.stored
    upsert_hash = None
    if stored is not None and stored.vector is not None and stored.hash is not None:
        upsert_hash = copied_hash(stored.hash, text, metadata, field=field, identity=identity)
    if upsert_hash is None:
        upsert_hash = record_hash(text, metadata, field=field, identity=identity, vector=vector)
    metadata[HASH_KEY] = upsert_hash
    has_text = found is not None
    return Document(item.object_id, text, metadata, upsert_hash, item, converted, vector, has_text=has_text)


# -- chunks -------------------------------------------------------------------------------------------------------


def split_item(item: Item, recipe: Recipe, splitter: Splitter) -> tuple[Document | None, Iterator[Document]]:
    """Return the document of the mean of an item's chunks, if the recipe wants it, and its chunks one by one.

    An item that brings its own vector has one chunk.

    Raises:
        ItemError: As for `make_document`; also later, if a chunk cannot be made.
    """
    payload, text, vector = read_payload(item, recipe)
    metadata, converted = metadata_of(payload, item, recipe)
    converted |= {key: "replaced by that of the chunk" for key in (OBJECT_KEY, CHUNK_KEY) if key in metadata}
    whole = Document(item.object_id, text or "", metadata, "", item, converted, vector, has_text=text is not None)
    texts = _with_last(splitter.chunks(whole.text) if vector is None else iter([whole.text]))
    first, is_only = next(texts)
    if not is_only:
        _check_repeated(metadata)
    average = _average(whole, first, splitter, identity=recipe.identity) if recipe.average else None
    return average, _chunks(whole, itertools.chain([(first, is_only)], texts), identity=recipe.identity)


def _with_last(texts: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """Yield each of at least one text, and whether it is the last."""
    known = next(texts)
    for following in texts:
        yield known, False
        known = following
    yield known, True


def _check_repeated(metadata: dict[str, Value]) -> None:
    """Check that the metadata of an item is small enough for each of several chunks to repeat it."""
    if (size := len(canonical(metadata))) > MAX_CHUNK_METADATA:
        detail = (
            f"the text has several chunks, and its metadata, which each of them repeats, has {size} bytes as JSON; "
            f"{MAX_CHUNK_METADATA} are allowed; --metadata-fields takes less"
        )
        raise ItemError(stage=Stage.SPLITTING, detail=detail)


def _average(whole: Document, first: str, splitter: Splitter, *, identity: str) -> Document:
    """Return the document of the mean; its text is the first chunk, by which a reader recognises the item."""
    vector = None if whole.vector is None else whole.vector.tolist()
    mean_of = canonical([whole.text, splitter.max_tokens, splitter.overlap, vector]).decode()
    return _chunk(whole._replace(vector=None), AVERAGE_NUMBER, first, identity=identity, is_last=None, mean_of=mean_of)


def _chunks(whole: Document, texts: Iterator[tuple[str, bool]], *, identity: str) -> Iterator[Document]:
    mean_of = None if whole.vector is None else whole.vector.tobytes().hex()
    for number, (text, is_last) in enumerate(texts):
        yield _chunk(whole, number, text, identity=identity, is_last=is_last, mean_of=mean_of)


def _chunk(
    whole: Document, number: int, text: str, *, identity: str, is_last: bool | None, mean_of: str | None
) -> Document:
    """Return the document of a chunk; see `chunk_hash` about the last arguments."""
    metadata = whole.metadata | {OBJECT_KEY: whole.id, CHUNK_KEY: chunk_name(number)}
    upsert_hash = chunk_hash(text, metadata, identity=identity, is_last=is_last, mean_of=mean_of)
    metadata[HASH_KEY] = upsert_hash
    return whole._replace(
        id=chunk_id(whole.id, number),
        text=text,
        metadata=metadata,
        upsert_hash=upsert_hash,
        converted=whole.converted if number == 0 else {},
        number=number,
        is_last_chunk=bool(is_last),
    )
