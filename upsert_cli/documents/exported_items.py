"""Item of a stored record -> item to write: in item form, so that a load of it makes the same record again.

Each one is made into a document first, by the same rules as in that load. A record that would come out otherwise is
not written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upsert_cli.documents.document import Recipe, make_document
from upsert_cli.documents.hashing import HASH_KEY
from upsert_cli.documents.metadata import shown
from upsert_cli.documents.payload import VECTOR_FIELD
from upsert_cli.documents.stored_items import TEXT_FIELD
from upsert_cli.embedding.catalog import DEFAULT_MODEL, NO_MODEL
from upsert_cli.errors import ItemError, Refusal
from upsert_cli.sources.item import Item, StoredParts
from upsert_cli.sources.item_writer import WrittenItem

INFO_PREFIX = "item_info."


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemForm:
    """Where documents and vectors stand in the items of an export."""

    text_field: str = TEXT_FIELD
    vector_field: str = VECTOR_FIELD
    with_vectors: bool = False

    def written(self, item: Item) -> WrittenItem:
        """Return the item to write.

        Args:
            item: From `item_of_record`.

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
            raise ItemError(detail=f"its metadata {shown(again.converted[0])} would become text")
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
