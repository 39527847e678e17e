"""Item -> Document: the text that is embedded, flat metadata that Chroma takes as it is, and a hash of both.

Whatever Chroma would reject, change in silence or choke on for good is found here, row by row, before any call is made.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from upsert_cli.errors import ItemError, Stage
from upsert_cli.stream.documents.hashes import HASH_KEY, record_hash
from upsert_cli.stream.documents.metadata import MAX_KEYS, Value, flatten
from upsert_cli.stream.documents.own_vectors import USUAL_FIELD, own_vector, without_vector
from upsert_cli.stream.documents.references import read_reference, reference_of
from upsert_cli.stream.documents.scopes import SCOPE_KEY
from upsert_cli.stream.documents.texts import text_by_template, text_of_fields
from upsert_cli.stream.items.item import Item, field_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How documents are made of items; what it changes of a record shows in its hash, and nothing else does."""

    text_fields: tuple[str, ...] = ("text",)
    """Dotted paths in the payload; their texts are joined by line breaks."""

    template: str | None = None
    """Such as `title: {title}\\n{body}`; the text is made by it, whatever the text fields are."""

    metadata_fields: tuple[str, ...] | None = None
    """Dotted paths in the payload, of what becomes metadata; None: all of it."""

    vector_field: str | None = None
    """Dotted path in the payload, of the vector that an item may bring; None: `vector`, where that is a list."""

    keep_lists: bool = False
    """Lists of one scalar kind stay lists."""

    refs_root: Path | None = None
    """The folder below which the text of an item without one is read, from the file that its `item_info` names."""

    scope: str | None = None
    """Which loads the record belongs to, and so which of them may delete it; None: none."""

    identity: str
    """The model's identity and the options of embedding."""

    dimension: int = 0
    """Numbers of a vector; 0 where it is not known."""


class Document(NamedTuple):
    """One record as it is going to be stored; a tuple, since there is one for every row."""

    id: str
    text: str

    metadata: dict[str, Value]
    """The payload, flat, `upsert_scope` where there is one, and `upsert_hash`."""

    upsert_hash: str
    """Two hashes in hex, `<text>.<metadata>`: what differs tells what has to be written."""

    item: Item

    converted: int
    """Values that had to be changed to fit, such as lists that became JSON text."""

    vector: array[float] | None = None
    """The item's own, of 32-bit floats; None: the text is to be embedded."""


def make_document(item: Item, recipe: Recipe) -> Document:
    """Makes the document of an item.

    Raises:
        ItemError: Its text is missing or blank, its vector is none, or its metadata is nothing that Chroma can hold.
    """
    payload = item.payload or {}
    vector = None
    if USUAL_FIELD in payload or recipe.vector_field is not None:
        vector = own_vector(payload, recipe.vector_field, dimension=recipe.dimension)
        if vector is not None:
            payload = without_vector(payload, recipe.vector_field)
    text = _text(payload, item, recipe)
    metadata: dict[str, Value] = {}
    if recipe.metadata_fields is None:
        converted = flatten(payload, metadata, keep_lists=recipe.keep_lists)
    else:
        converted = _flatten_chosen(payload, recipe.metadata_fields, metadata, keep_lists=recipe.keep_lists)
    if item.item_info:
        converted += flatten(item.item_info, metadata, prefix="item_info.", keep_lists=recipe.keep_lists)
    if recipe.scope is not None:
        metadata[SCOPE_KEY] = recipe.scope
    if len(metadata) >= MAX_KEYS:
        raise ItemError(stage=Stage.READING, detail=f"{len(metadata)} metadata keys, {MAX_KEYS - 1} are allowed")
    upsert_hash = metadata[HASH_KEY] = record_hash(
        text, metadata, field=recipe.text_fields[0], identity=recipe.identity, vector=vector
    )
    return Document(item.object_id, text, metadata, upsert_hash, item, converted, vector)


def _text(payload: dict[str, Any], item: Item, recipe: Recipe) -> str:
    if recipe.template is not None:
        return text_by_template(payload, recipe.template)
    if recipe.refs_root is not None and all(field_at(payload, name) is None for name in recipe.text_fields):
        reference = reference_of(item.item_info)
        if reference is not None:
            return read_reference(recipe.refs_root, reference)
    return text_of_fields(payload, recipe.text_fields)


def _flatten_chosen(
    payload: dict[str, Any], names: tuple[str, ...], into: dict[str, Value], *, keep_lists: bool
) -> int:
    converted = 0
    for name in names:
        if (value := field_at(payload, name)) is not None:
            # By itself, since one path may lead into what another one leads to.
            chosen: dict[str, Value] = {}
            converted += flatten({name: value}, chosen, keep_lists=keep_lists)
            into |= chosen
    return converted
