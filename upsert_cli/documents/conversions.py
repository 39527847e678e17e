"""Values of an item that are not stored as the item has them, since Chroma's metadata holds only scalars."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from upsert_cli.documents.chunking import CHUNK_KEY, OBJECT_KEY
from upsert_cli.documents.document import Document
from upsert_cli.sources.item import Item, field_at
from upsert_cli.sources.json_text import kind_of

_INFO = "item_info."
_NUMBERS = {int: "an integer beyond 64 bits", float: "a number that is not finite"}  # other numbers stay numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A value that is not stored as the item has it."""

    field: str
    """The metadata key."""

    kind: str
    """The kind of the item's value, such as `a list`."""

    def as_json(self) -> dict[str, str]:
        """Return the conversion as plain data."""
        return {"field": self.field, "kind": self.kind}


def conversions_of(document: Document) -> Iterator[Conversion]:
    """Yield the conversions behind the metadata of a document."""
    for key in document.converted:
        if document.chunk is not None and key in (OBJECT_KEY, CHUNK_KEY):
            yield Conversion(field=key, kind="replaced by that of the chunk")
            continue
        original = _original(document.item, key)
        yield Conversion(field=key, kind=_NUMBERS.get(type(original)) or kind_of(original))


def _original(item: Item, key: str) -> object:
    """Return the value of an item that is stored under a metadata key, or None."""
    if item.item_info is not None and key.startswith(_INFO):
        value = field_at(item.item_info, key.removeprefix(_INFO))
        if value is not None:
            return value
    return field_at(item.payload or {}, key)
