"""The text to embed and the own vector in the payload of an item, by a recipe."""

from __future__ import annotations

import math
from array import array
from typing import Any

from upsert_cli.documents.recipe import DEFAULT_TEXT_FIELDS, VECTOR_FIELD, Recipe, parse_template
from upsert_cli.documents.references import read_reference, reference_of
from upsert_cli.errors import ItemError
from upsert_cli.sources.item import Item, StoredParts
from upsert_cli.sources.json_text import parse
from upsert_cli.sources.values import as_text, as_utf8, field_at, kind_of, with_field, without_field

_MAY_HOLD_BYTES = frozenset([bytes, list, dict])
_NUMBERS = frozenset([int, float])


def read_payload(item: Item, recipe: Recipe) -> tuple[dict[str, Any], str | None, array[float] | None]:
    """Return the payload of an item without its own vector, the item's text, and that vector.

    The text is None for an item that may lack it, and the vector is None for an item that is to be embedded.

    Raises:
        ItemError: The text is missing or blank, or the vector is not usable.
    """
    payload = item.payload or {}
    if item.stored is not None:
        return payload, _text_of_record(payload, item.stored, recipe), item.stored.vector
    field = recipe.vector_field or VECTOR_FIELD
    vector = None
    if field in payload or recipe.vector_field is not None:
        vector = _own_vector(payload, field, recipe)
        if vector is not None:
            payload = without_field(payload, field)
    if vector is None and not recipe.embeds:
        raise _no_vector(payload, field)
    payload = _with_decoded_texts(payload, recipe.text_paths)
    return payload, _text(payload, item.item_info, recipe), vector


def _text(payload: dict[str, Any], info: dict[str, Any] | None, recipe: Recipe) -> str | None:
    """Return the text of an item: by the template, else from the file that it names, else from the text fields."""
    if recipe.template is not None:
        return _text_by_template(payload, recipe.template)
    if recipe.refs_root is not None and all(field_at(payload, name) is None for name in recipe.text_fields):
        reference = reference_of(info)
        if reference is not None:
            return read_reference(recipe.refs_root, reference)
    return _text_of_fields(payload, recipe.text_fields, may_be_blank=not recipe.embeds)


def _text_of_record(payload: dict[str, Any], stored: StoredParts, recipe: Recipe) -> str | None:
    """Return the text of a stored record: its document, unless the recipe has a template or other text fields."""
    if stored.fault is not None:
        raise ItemError(detail=stored.fault)
    if recipe.template is not None:
        return _text_by_template(payload, recipe.template)
    if recipe.text_fields != DEFAULT_TEXT_FIELDS:
        return _text_of_fields(payload, recipe.text_fields)
    if stored.vector is None and not (stored.document or "").strip():
        fault = "has no document" if stored.document is None else "has a blank document"
        raise ItemError(detail=f"the record {fault}, so there is no text to embed; --keep-vectors copies its vector")
    return stored.document


def _text_by_template(payload: dict[str, Any], template: str) -> str:
    pieces = []
    for literal, path in parse_template(template):
        pieces.append(literal)
        if path is not None:
            value = field_at(payload, path)
            if value is None:
                raise ItemError(detail=f"payload.{path} is missing, and the template needs it")
            pieces.append(as_text(value))
    text = "".join(pieces)
    if not text or text.isspace():
        raise ItemError(detail="the text by the template is empty")
    return text


def _text_of_fields(payload: dict[str, Any], names: tuple[str, ...], *, may_be_blank: bool = False) -> str | None:
    """Return the texts of some fields, joined by line breaks."""
    texts = []
    for name in names:
        value = field_at(payload, name)
        if isinstance(value, str):
            texts.append(value)
        elif value is not None:
            raise ItemError(detail=f"payload.{name} is {kind_of(value)}, not text")
    text = "\n".join(texts) if texts else None
    if not may_be_blank and (not text or text.isspace()):
        raise ItemError(detail=f"payload.{' and payload.'.join(names)} is {'empty' if texts else 'missing'}")
    return text


def _with_decoded_texts(payload: dict[str, Any], paths: tuple[str, ...]) -> dict[str, Any]:
    """Return a payload with text in place of bytes in the fields of the text; bytes elsewhere become base64."""
    for path in paths:
        if type(payload.get(path)) is str:  # nearly always
            continue
        value = field_at(payload, path)
        if type(value) in _MAY_HOLD_BYTES and (text := as_utf8(value, f"payload.{path}")) != value:
            payload = with_field(payload, path, text)
    return payload


# -- vectors ------------------------------------------------------------------------------------------------------


def _own_vector(payload: dict[str, Any], field: str, recipe: Recipe) -> array[float] | None:
    """Return the vector that an item brings, as 32-bit floats; None for an item that is to be embedded.

    A field that `--vector-field` names may also hold the vector as JSON text; in `payload.vector`, only a list is one.
    """
    value = field_at(payload, field)
    if value is None or (recipe.vector_field is None and type(value) is not list):
        return None
    name = f"payload.{field}"
    if isinstance(value, str | bytes):
        if not value.strip():  # an empty cell of a table
            return None
        try:
            value = parse(value)
        except ItemError as error:
            raise ItemError(detail=f"{name} is {error.detail}") from None
    floats = checked_vector(value, name)
    if recipe.dimension and len(floats) != recipe.dimension:
        others, remedy = "the collection's vectors", ""
        if recipe.embeds:
            others, remedy = f"those of the model {recipe.model}", "; --model none takes vectors of any dimension"
        raise ItemError(detail=f"{name} has {len(floats)} numbers, and {others} have {recipe.dimension}{remedy}")
    return floats


def _no_vector(payload: dict[str, Any], field: str) -> ItemError:
    value = field_at(payload, field)
    fault = "missing" if value is None or value == "" else f"{kind_of(value)}, not a vector"
    return ItemError(detail=f"payload.{field} is {fault}, and with --model none nothing is embedded")


def checked_vector(value: object, name: str) -> array[float]:
    """Return a vector as 32-bit floats; errors call it by a name such as `payload.vector`.

    Raises:
        ItemError: The value is not a list of finite numbers, or all of them are zero.
    """
    if type(value) is not list:
        raise ItemError(detail=f"{name} is {kind_of(value)}, not a vector")
    if not _NUMBERS.issuperset(map(type, value)):
        raise ItemError(detail=f"{name} is not only numbers, not a vector")
    if not value:
        raise ItemError(detail=f"{name} has no numbers")
    try:
        floats = array("f", value)
        is_finite = math.isfinite(sum(floats))
    except OverflowError:
        is_finite = False
    if not is_finite:
        raise ItemError(detail=f"{name} has a number that is not finite as 32 bits")
    if not any(floats):
        raise ItemError(detail=f"{name} is all zeros, so no other vector is close to it")
    return floats
