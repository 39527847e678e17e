"""How documents are made of items: the text by its fields or a template, an own vector, and what becomes metadata."""

from __future__ import annotations

import math
import re
from array import array
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upsert_cli.documents.references import read_reference, reference_of
from upsert_cli.embedding.catalog import DEFAULT_MODEL, embeds
from upsert_cli.errors import ItemError, UsageFault
from upsert_cli.sources.item import Item, StoredParts, field_at, with_field, without_field
from upsert_cli.sources.json_text import as_text, as_utf8, kind_of, parse

if TYPE_CHECKING:
    from upsert_cli.documents.document import Splitter

TEXT_FIELD = "text"  # of the payload, where the document of a stored record stands
DEFAULT_TEXT_FIELDS = (TEXT_FIELD,)
VECTOR_FIELD = "vector"  # of the payload, where a list is a vector without an option

_MAY_HOLD_BYTES = frozenset([bytes, list, dict])
_NUMBERS = frozenset([int, float])
_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<path>[^{}]*)\}|\\[nt\\]|[{}]")
_ESCAPES = {"{{": "{", "}}": "}", r"\n": "\n", r"\t": "\t", "\\\\": "\\"}  # a shell passes a typed \n unchanged


@dataclass(frozen=True, kw_only=True)  # without slots, for the cached properties
class Recipe:
    """How documents are made of items; anything that it changes in a record changes the record's hash."""

    text_fields: tuple[str, ...] = DEFAULT_TEXT_FIELDS
    """Dotted paths in the payload; their texts are joined by line breaks."""

    template: str | None = None
    """Such as `title: {title}\\n{body}`; takes precedence over the text fields."""

    metadata_fields: tuple[str, ...] | None = None
    """Dotted paths in the payload of the fields that become metadata; None: all that do not make up the document."""

    vector_field: str | None = None
    """Dotted path in the payload of the vector that an item may bring; None: `vector`, where that is a list."""

    keep_lists: bool = False
    """Lists of one scalar kind stay lists."""

    refs_root: Path | None = None
    """The folder with the files that `item_info` may name for the text of an item without one."""

    scope: str | None = None
    """Which loads the record belongs to, and so which of them may delete it; None: none."""

    identity: str
    """The model's identity and the options of embedding."""

    model: str = DEFAULT_MODEL
    """Its name; with `none`, every item has to bring its vector, and may lack a text."""

    dimension: int = 0
    """Numbers of a vector; 0 if not known."""

    splitter: Splitter | None = None
    """Splits the text of every item into chunks; None: an item is one document."""

    average: bool = False
    """The mean of an item's chunks becomes a record too."""

    @cached_property
    def embeds(self) -> bool:
        """Whether texts are embedded by a model."""
        return embeds(self.model)

    @cached_property
    def text_paths(self) -> tuple[str, ...]:
        """The dotted paths in the payload that the text is made of, each once."""
        return tuple(dict.fromkeys(self.text_fields)) if self.template is None else template_fields(self.template)


# -- texts --------------------------------------------------------------------------------------------------------


def read_payload(item: Item, recipe: Recipe) -> tuple[dict[str, Any], str | None, array[float] | None]:
    """Return the payload that may become metadata, the text of an item, if any, and its own vector, if any.

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
        value = field_at(payload, field)
        fault = "missing" if value is None or value == "" else f"{kind_of(value)}, not a vector"
        raise ItemError(detail=f"payload.{field} is {fault}, and with --model none nothing is embedded")
    payload = _with_texts(payload, recipe.text_paths)
    return payload, _text(payload, item.item_info, recipe), vector


def _text(payload: dict[str, Any], info: dict[str, Any] | None, recipe: Recipe) -> str | None:
    if recipe.template is not None:
        return _text_by_template(payload, recipe.template)
    if recipe.refs_root is not None and all(field_at(payload, name) is None for name in recipe.text_fields):
        reference = reference_of(info)
        if reference is not None:
            return read_reference(recipe.refs_root, reference)
    return _text_of_fields(payload, recipe.text_fields, may_be_blank=not recipe.embeds)


def _text_of_record(payload: dict[str, Any], stored: StoredParts, recipe: Recipe) -> str | None:
    """Return the text of a stored record: its document, unless a template or other fields are given."""
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
    """Join the texts of some fields by line breaks."""
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


def _with_texts(payload: dict[str, Any], paths: tuple[str, ...]) -> dict[str, Any]:
    """Return a payload with text in place of bytes in some fields, since bytes elsewhere become base64."""
    for path in paths:
        if type(payload.get(path)) is str:  # nearly always
            continue
        value = field_at(payload, path)
        if type(value) in _MAY_HOLD_BYTES and (text := as_utf8(value, f"payload.{path}")) != value:
            payload = with_field(payload, path, text)
    return payload


# -- templates ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def parse_template(template: str) -> tuple[tuple[str, str | None], ...]:
    """Return the literal texts of a template, each with the dotted path of the field after it; None at the end.

    A field is only ever a path of keys, unlike in Python's format strings.

    Raises:
        UsageFault: A brace has no partner, or the template names no field.
    """
    parts: list[tuple[str, str | None]] = []
    literal, end = "", 0
    for token in _TOKEN.finditer(template):
        literal += template[end : token.start()]
        end = token.end()
        if token[0] in _ESCAPES:
            literal += _ESCAPES[token[0]]
            continue
        path = (token["path"] or "").strip()
        if not path:
            raise _bad_template(template, f"`{token[0]}` at character {token.start() + 1} names no field")
        parts.append((literal, path))
        literal = ""
    if not parts:
        raise _bad_template(template, "it names no field")
    return (*parts, (literal + template[end:], None))


def _bad_template(template: str, reason: str) -> UsageFault:
    return UsageFault(
        message=f"--template {template!r}: {reason}; it takes `{{field}}` or `{{outer.inner}}`, and `{{{{` and `}}}}` "
        "for the braces themselves"
    )


@lru_cache(maxsize=16)
def template_fields(template: str) -> tuple[str, ...]:
    """Return the paths that a template names, each once."""
    return tuple(dict.fromkeys(path for _, path in parse_template(template) if path is not None))


# -- vectors ------------------------------------------------------------------------------------------------------


def _own_vector(payload: dict[str, Any], field: str, recipe: Recipe) -> array[float] | None:
    """Return the vector that an item brings, as 32-bit floats; None for an item that is to be embedded.

    In a field that `--vector-field` names, it may also be JSON text; in the usual one, only a list is a vector.
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


def checked_vector(value: object, name: str) -> array[float]:
    """Return a vector as 32-bit floats; errors call it by its name, such as `payload.vector`.

    Raises:
        ItemError: It is not a list of finite numbers, or all of them are zero.
    """
    if type(value) is not list or not _NUMBERS.issuperset(map(type, value)):
        raise ItemError(
            detail=f"{name} is {'not only numbers' if type(value) is list else kind_of(value)}, not a vector"
        )
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
