"""Records of a collection as items, and as documents to write again.

The payload of such an item is the metadata, without this tool's own keys, and its `text` is the document. Where the
metadata has a key `text` already, the payload keeps that, and the item holds the document apart from the payload.

Chunks that were made with an overlap repeat the end of the chunk before, and the length of the overlap is not stored.
So texts are joined only where no chunk begins with the end of the chunk before, which shows that there was no overlap.
A mark in the hash of the last chunk shows that the item is complete.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from upsert_cli.documents.document import Document, make_document
from upsert_cli.documents.hashing import (
    AVERAGE_NUMBER,
    CHUNK_KEY,
    HASH_KEY,
    OBJECT_KEY,
    is_last_chunk,
    stored_fault,
    stored_hash,
    with_exact_floats,
)
from upsert_cli.documents.metadata import INFO_PREFIX, SCOPE_KEY, shown_key
from upsert_cli.documents.recipe import TEXT_FIELD, VECTOR_FIELD, Recipe
from upsert_cli.embedding.catalog import DEFAULT_MODEL, NO_MODEL
from upsert_cli.errors import ItemError, Refusal
from upsert_cli.sources.item import Item, StoredParts, WrittenItem

_OWN_KEYS = (HASH_KEY, SCOPE_KEY)
_KINDS = frozenset([str, int, float, bool, list])


def item_of_record(
    identifier: str,
    document: str | None,
    metadata: Mapping[str, Any],
    *,
    vector: array[float] | None = None,
    fault: str | None = None,
) -> Item:
    """Return the item of a record, without its source and row.

    Args:
        identifier: The record's id.
        document: Its text, if any.
        metadata: As the store returned it.
        vector: Its vector, if a load keeps it.
        fault: The reason why the record cannot be loaded, if the store has found one.
    """
    payload = {key: value for key, value in with_exact_floats(metadata).items() if key not in _OWN_KEYS}
    has_own_text = TEXT_FIELD in payload
    if document is not None and not has_own_text:
        payload = {TEXT_FIELD: document} | payload
    upsert_hash = metadata.get(HASH_KEY)
    parts = StoredParts(
        document,
        has_own_text=has_own_text,
        vector=vector,
        hash=upsert_hash if isinstance(upsert_hash, str) else None,
        fault=fault or _fault(identifier, payload, vector),
    )
    return Item(identifier, payload, None, "", 0, stored=parts)


def _fault(identifier: str, payload: Mapping[str, Any], vector: array[float] | None) -> str | None:
    """Return the reason why a record cannot become an item, or None."""
    if not identifier:
        return "its id is empty"
    if "\0" in identifier:
        return "its id holds a NUL character"
    if vector and not any(vector):
        return "its vector is all zeros, so no other vector is close to it"
    for key, value in payload.items():
        if type(value) not in _KINDS:
            return f"its metadata {shown_key(key)} is of type {type(value).__name__}, which cannot be copied"
    return None


def document_of_record(
    identifier: str, text: str, metadata: dict[str, Any], *, collection: str, identity: str | None
) -> Document:
    """Return the document that writes a stored record again, with the hash of its present content.

    `identity` is the model's, which is part of the hash; None if the records of the collection have no hash.
    """
    if identity is not None and stored_fault(text, metadata, identity) is None:
        metadata = with_exact_floats(metadata)  # the returned floats would be rounded once more
    elif identity is not None:
        with suppress(ItemError):  # too large for a hash: another program stored the record, so it stays unchanged
            metadata = metadata | {HASH_KEY: stored_hash(text, metadata, identity)}
    item = Item(identifier, None, None, collection, 0)
    return Document(identifier, text, metadata, str(metadata.get(HASH_KEY, "")), item, {})


# -- chunks -------------------------------------------------------------------------------------------------------


def joined(object_id: str, chunks: Iterable[tuple[int, str | None, Mapping[str, Any]]]) -> Item | None:
    """Return the item that was split into chunks, or None if a chunk is missing or the text is not certain.

    Args:
        object_id: The item's id.
        chunks: The number, the text and the metadata of each chunk, in any order; the mean is ignored.
    """
    ordered = sorted((chunk for chunk in chunks if chunk[0] != AVERAGE_NUMBER), key=itemgetter(0))
    if not _is_whole([number for number, _, _ in ordered], [metadata for _, _, metadata in ordered]):
        return None
    texts = [text or "" for _, text, _ in ordered]
    if not all(texts) or any(itertools.starmap(_may_overlap, itertools.pairwise(texts))):
        return None
    first, *others = (_common(metadata) for _, _, metadata in ordered)
    return item_of_record(object_id, "".join(texts), first) if all(other == first for other in others) else None


def _is_whole(numbers: Sequence[int], metadata: Sequence[Mapping[str, Any]]) -> bool:
    """Check that the chunks of an item have no gap, and that only the last of them is marked as the last.

    Otherwise chunks are missing, or are left over from a longer text.
    """
    marks = [is_last_chunk(each.get(HASH_KEY)) for each in metadata]
    return [*numbers] == [*range(len(numbers))] and marks == [False] * (len(marks) - 1) + [True]


def _common(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that all chunks of an item have."""
    chunks_own = (HASH_KEY, OBJECT_KEY, CHUNK_KEY)
    return {key: value for key, value in with_exact_floats(metadata).items() if key not in chunks_own}


def _may_overlap(before: str, after: str) -> bool:
    """Check whether a text begins with the end of the text before it."""
    start = before.find(after[0], max(0, len(before) - len(after)))
    while start >= 0:
        if after.startswith(before[start:]):
            return True
        start = before.find(after[0], start + 1)
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemForm:
    """The form of the items in an export, from which a load makes the same records.

    Each item is first made into a document, by the rules of that load, and compared with its record.
    """

    text_field: str = TEXT_FIELD
    """The field of the payload for the document."""

    vector_field: str = VECTOR_FIELD
    """The field of the payload for the vector."""

    with_vectors: bool = False
    """Vectors are exported, so a load needs no model."""

    def load_options(self) -> list[str]:
        """Return the options of a load that read these items."""
        options = [] if self.text_field == TEXT_FIELD else ["--text-field", self.text_field]
        if self.with_vectors and self.vector_field != VECTOR_FIELD:
            options += ["--vector-field", self.vector_field]
        return options

    def written(self, item: Item) -> WrittenItem:
        """Return an item that `item_of_record` made in the form for an export.

        Raises:
            ItemError: A load could not make the record again.
            Refusal: The metadata of the record has a key with the name of the field for the document or the vector.
        """
        stored = item.stored
        assert stored is not None  # noqa: S101  # `item_of_record` sets it
        if (fault := self._fault(stored)) is not None:
            raise ItemError(detail=fault)
        metadata = dict(item.payload or {})
        if not stored.has_own_text:
            metadata.pop(TEXT_FIELD, None)
        self._check_fields(item.object_id, metadata)
        payload, info = _divided(metadata)
        if stored.document is not None:
            payload = {self.text_field: stored.document} | payload
        if stored.vector is not None:
            payload[self.vector_field] = stored.vector.tolist()
        self._check_loaded_again(item._replace(payload=payload, item_info=info, stored=None), metadata, stored)
        return WrittenItem.of(item.object_id, payload, info)

    def _fault(self, stored: StoredParts) -> str | None:
        """Return the reason why a load could not read a record, or None."""
        if self.with_vectors and stored.vector is None:
            return "the index has no vector of it; without --vectors its document is written"
        if stored.fault is not None:
            return stored.fault
        if self.with_vectors or (stored.document or "").strip():
            return None
        lacking = "no document" if stored.document is None else "a blank document"
        return f"it has {lacking}, so nothing could be embedded; --vectors writes its vector"

    def _check_fields(self, identifier: str, metadata: dict[str, Any]) -> None:
        """Raise Refusal if a load would take a value of the metadata for the document or the vector."""
        if self.text_field in metadata:
            raise _taken(identifier, self.text_field, "the document", "--text-field document")
        if self.with_vectors and self.vector_field in metadata:
            raise _taken(identifier, self.vector_field, "the vector", "--vector-field embedding")
        if not self.with_vectors and isinstance(metadata.get(VECTOR_FIELD), list):
            raise _taken(identifier, VECTOR_FIELD, "a vector", "--vectors --vector-field embedding")

    def _check_loaded_again(self, item: Item, metadata: dict[str, Any], stored: StoredParts) -> None:
        """Raise ItemError if a load would not make the same record of an item."""
        recipe = Recipe(
            text_fields=(self.text_field,),
            vector_field=None if self.vector_field == VECTOR_FIELD else self.vector_field,
            keep_lists=True,
            identity="",
            model=NO_MODEL if self.with_vectors else DEFAULT_MODEL,
        )
        loaded = make_document(item, recipe)
        if loaded.converted:
            raise ItemError(detail=f"its metadata {shown_key(next(iter(loaded.converted)))} would become text")
        kept = {key: value for key, value in loaded.metadata.items() if key != HASH_KEY}
        if (loaded.text, kept, loaded.vector) != (stored.document or "", metadata, stored.vector):
            raise ItemError(detail="a load would make another record of it")


def _divided(metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return payload and info; keys keep their dots, so that no two of them become one."""
    payload: dict[str, Any] = {}
    info: dict[str, Any] = {}
    for key in sorted(metadata):  # Chroma returns keys in any order, but equal records make equal lines
        if key.startswith(INFO_PREFIX):
            info[key.removeprefix(INFO_PREFIX)] = metadata[key]
        else:
            payload[key] = metadata[key]
    return payload, info or None


def _taken(identifier: str, field: str, meaning: str, remedy: str) -> Refusal:
    return Refusal(
        message=f"the record {identifier!r} has a key {shown_key(field)} in its metadata, which a load would take for "
        f"{meaning}; `{remedy}` writes {meaning} under another name"
    )
