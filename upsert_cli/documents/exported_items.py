"""Items for an export, in a form of which a load makes the same records again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from upsert_cli.documents.document import make_document
from upsert_cli.documents.hashing import HASH_KEY
from upsert_cli.documents.metadata import INFO_PREFIX, shown_key
from upsert_cli.documents.recipe import TEXT_FIELD, VECTOR_FIELD, Recipe
from upsert_cli.embedding.catalog import DEFAULT_MODEL, NO_MODEL
from upsert_cli.errors import ItemError, Refusal
from upsert_cli.sources.item import Item, StoredParts, WrittenItem


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemForm:
    """The form of the items in an export, of which a load makes the same records.

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
