"""Record <-> item: the item that a stored record stands for, in loads of a collection and in exports.

The payload is the metadata, without this tool's own keys, and `text` is the document. Where the metadata has a key
`text` of its own, that is what the payload holds, and the document is kept next to it, so that nothing is lost.

Chunks that were made with an overlap repeat the end of the chunk before, and nothing stored tells how much of it. So
texts are joined only where no chunk begins as the chunk before it ends: there was no overlap. A mark in the hash of the
last chunk shows that the item is complete.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
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
from upsert_cli.documents.metadata import INFO_PREFIX, SCOPE_KEY, shown
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
    """Return the item of a record, without its source and row, from the metadata that the store returned.

    The vector is given if it is to be kept, and a fault if it is known why the record cannot be loaded.
    """
    payload = {key: value for key, value in with_exact_floats(metadata).items() if key not in _OWN_KEYS}
    has_own_text = TEXT_FIELD in payload
    if document is not None and not has_own_text:
        payload = {TEXT_FIELD: document} | payload
    hashed = metadata.get(HASH_KEY)
    parts = StoredParts(
        document,
        has_own_text,
        vector,
        hashed if isinstance(hashed, str) else None,
        fault or _fault(identifier, payload, vector),
    )
    return Item(identifier, payload, None, "", 0, stored=parts)


def _fault(identifier: str, payload: Mapping[str, Any], vector: array[float] | None) -> str | None:
    if "\0" in identifier or not identifier:
        return "its id holds a NUL character" if identifier else "its id is empty"
    if vector and not any(vector):
        return "its vector is all zeros, so no other vector is close to it"
    return next(
        (
            f"its metadata {shown(key)} is of type {type(value).__name__}, which cannot be copied"
            for key, value in payload.items()
            if type(value) not in _KINDS
        ),
        None,
    )


def document_of_record(
    identifier: str, text: str, metadata: dict[str, Any], *, collection: str, identity: str | None
) -> Document:
    """Return a stored record to write again, with the hash of its present content.

    `identity` is that of the model, which is part of the hash; None if the records of its collection have no hash.
    """
    if identity is not None and stored_fault(text, metadata, identity) is None:
        metadata = with_exact_floats(metadata)  # the returned floats would be rounded once more
    elif identity is not None:
        with suppress(ItemError):  # too large for our hash: another program stored it, and it stays unchanged
            metadata = metadata | {HASH_KEY: stored_hash(text, metadata, identity)}
    item = Item(identifier, None, None, collection, 0)
    return Document(identifier, text, metadata, str(metadata.get(HASH_KEY, "")), item, {})


# -- chunks -------------------------------------------------------------------------------------------------------


def joined(object_id: str, chunks: Iterable[tuple[int, str | None, Mapping[str, Any]]]) -> Item | None:
    """Return the item that was split into chunks, or None if one is missing or the text is not certain.

    The number, the text and the metadata of each chunk may come in any order; the average does not count.
    """
    ordered = sorted((each for each in chunks if each[0] != AVERAGE_NUMBER), key=lambda each: each[0])
    texts = [text for _, text, _ in ordered if text]
    if not texts or [number for number, _, _ in ordered] != list(range(len(texts))):
        return None
    *inner, end = (is_last_chunk(metadata.get(HASH_KEY)) for _, _, metadata in ordered)
    if any(inner) or not end:  # the last chunk is missing, or others are left over from a longer text
        return None
    first, *others = (_common(metadata) for _, _, metadata in ordered)
    if any(other != first for other in others) or any(itertools.starmap(_may_overlap, itertools.pairwise(texts))):
        return None
    return item_of_record(object_id, "".join(texts), first)


def _common(metadata: Mapping[str, Any]) -> dict[str, Any]:
    chunks_own = (HASH_KEY, OBJECT_KEY, CHUNK_KEY)
    return {key: value for key, value in with_exact_floats(metadata).items() if key not in chunks_own}


def _may_overlap(before: str, after: str) -> bool:
    """Tell whether a text begins as the one before it ends."""
    start = before.find(after[0], max(0, len(before) - len(after)))
    while start >= 0:
        if after.startswith(before[start:]):
            return True
        start = before.find(after[0], start + 1)
    return False


# -- exports ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemForm:
    """Where documents and vectors stand in the items of an export, which a load makes the same records of.

    Each item is made into a document first, by the same rules as in that load.
    """

    text_field: str = TEXT_FIELD
    vector_field: str = VECTOR_FIELD
    with_vectors: bool = False

    def load_options(self) -> list[str]:
        """Return the options by which a load finds documents and vectors there."""
        options = [] if self.text_field == TEXT_FIELD else ["--text-field", self.text_field]
        if self.with_vectors and self.vector_field != VECTOR_FIELD:
            options += ["--vector-field", self.vector_field]
        return options

    def written(self, item: Item) -> WrittenItem:
        """Return the item to write of one that `item_of_record` made.

        Raises:
            ItemError: A load could not make the record again.
            Refusal: Its metadata has a key where the document or the vector is to stand.
        """
        stored = item.stored
        assert stored is not None  # noqa: S101  # `item_of_record` sets it
        if (fault := self._fault(stored)) is not None:
            raise ItemError(detail=fault)
        metadata = dict(item.payload or {})
        if not stored.has_own_text:
            metadata.pop(TEXT_FIELD, None)
        self._check_fields(item.object_id, metadata)
        payload, info = self._divided(metadata)
        if stored.document is not None:
            payload = {self.text_field: stored.document} | payload
        if stored.vector is not None:
            payload[self.vector_field] = stored.vector.tolist()
        again = make_document(item._replace(payload=payload, item_info=info, stored=None), self._recipe)
        if again.converted:
            raise ItemError(detail=f"its metadata {shown(next(iter(again.converted)))} would become text")
        kept = {key: value for key, value in again.metadata.items() if key != HASH_KEY}
        if (again.text, kept, again.vector) != (stored.document or "", metadata, stored.vector):
            raise ItemError(detail="a load would make another record of it")
        return WrittenItem.of(item.object_id, payload, info)

    def _fault(self, stored: StoredParts) -> str | None:
        """Return why an item lacks a part that a load needs, or None."""
        if self.with_vectors and stored.vector is None:
            return "the index has no vector of it; without --vectors its document is written"
        if stored.fault is not None or self.with_vectors or (stored.document or "").strip():
            return stored.fault
        lacking = "no document" if stored.document is None else "a blank document"
        return f"it has {lacking}, so nothing could be embedded; --vectors writes its vector"

    @property
    def _recipe(self) -> Recipe:
        return Recipe(
            text_fields=(self.text_field,),
            vector_field=None if self.vector_field == VECTOR_FIELD else self.vector_field,
            keep_lists=True,
            identity="",
            model=NO_MODEL if self.with_vectors else DEFAULT_MODEL,
        )

    def _check_fields(self, identifier: str, metadata: dict[str, Any]) -> None:
        if self.text_field in metadata:
            raise _taken(identifier, self.text_field, "the document", "--text-field document")
        if self.with_vectors and self.vector_field in metadata:
            raise _taken(identifier, self.vector_field, "the vector", "--vector-field embedding")
        if not self.with_vectors and isinstance(metadata.get(VECTOR_FIELD), list):
            raise _taken(identifier, VECTOR_FIELD, "a vector", "--vectors --vector-field embedding")

    @staticmethod
    def _divided(metadata: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return payload and info; their keys keep their dots, so that none can meet another."""
        payload: dict[str, Any] = {}
        info: dict[str, Any] = {}
        for key in sorted(metadata):  # Chroma returns them in any order, and an equal record has an equal line
            if key.startswith(INFO_PREFIX):
                info[key.removeprefix(INFO_PREFIX)] = metadata[key]
            else:
                payload[key] = metadata[key]
        return payload, info or None


def _taken(identifier: str, field: str, meaning: str, remedy: str) -> Refusal:
    return Refusal(
        message=f"the record {identifier!r} has a key {shown(field)} in its metadata, which a load would take for "
        f"{meaning}; `{remedy}` writes {meaning} under another name"
    )
