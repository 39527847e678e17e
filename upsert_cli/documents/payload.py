"""The text to embed, from fields of a payload or a template, and the vector that a payload may bring."""

from __future__ import annotations

import math
import re
from array import array
from functools import lru_cache
from typing import Any, NamedTuple

from upsert_cli.documents.stored_items import TEXT_FIELD
from upsert_cli.embedding.catalog import DEFAULT_MODEL, embeds
from upsert_cli.errors import ItemError, UsageFault
from upsert_cli.sources.item import StoredParts, field_at, with_field
from upsert_cli.sources.json_text import as_text, as_utf8, kind_of, parse

VECTOR_FIELD = "vector"  # of the payload, where a list is a vector without an option

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<path>[^{}]*)\}|\\[nt\\]|[{}]")
_ESCAPES = {"{{": "{", "}}": "}", r"\n": "\n", r"\t": "\t", "\\\\": "\\"}  # a shell passes a typed \n unchanged
_MAY_HOLD_BYTES = frozenset([bytes, list, dict])
_NUMBERS = frozenset([int, float])


class TemplatePart(NamedTuple):
    """A piece of a template."""

    literal: str
    path: str | None
    """Dotted path of the field that follows; None at the end."""


@lru_cache(maxsize=16)
def parse_template(template: str) -> tuple[TemplatePart, ...]:
    """Parse a template, in which a field is only ever a path of keys, unlike in Python's format strings.

    Raises:
        UsageFault: A brace has no partner, or the template names no field.
    """
    parts: list[TemplatePart] = []
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
        parts.append(TemplatePart(literal, path))
        literal = ""
    if not parts:
        raise _bad_template(template, "it names no field")
    return (*parts, TemplatePart(literal + template[end:], None))


def _bad_template(template: str, reason: str) -> UsageFault:
    return UsageFault(
        message=f"--template {template!r}: {reason}; it takes `{{field}}` or `{{outer.inner}}`, and `{{{{` and `}}}}` "
        "for the braces themselves"
    )


@lru_cache(maxsize=16)
def template_fields(template: str) -> tuple[str, ...]:
    """Return the paths that a template names, each once."""
    return tuple(dict.fromkeys(part.path for part in parse_template(template) if part.path is not None))


def with_texts(payload: dict[str, Any], paths: tuple[str, ...]) -> dict[str, Any]:
    """Return a payload with text in place of bytes in some fields, since bytes elsewhere become base64.

    Raises:
        ItemError: They are not UTF-8.
    """
    for path in paths:
        if type(payload.get(path)) is str:  # nearly always
            continue
        value = field_at(payload, path)
        if type(value) in _MAY_HOLD_BYTES and (text := as_utf8(value, f"payload.{path}")) != value:
            payload = with_field(payload, path, text)
    return payload


def text_by_template(payload: dict[str, Any], template: str) -> str:
    """Fill in a template.

    Raises:
        ItemError: The payload lacks one of its fields, or the text is blank.
    """
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


def text_of_fields(payload: dict[str, Any], names: tuple[str, ...], *, may_be_blank: bool = False) -> str:
    """Join the texts of some fields by line breaks.

    Raises:
        ItemError: All are missing or blank, unless they may be; or one is not text.
    """
    texts = []
    for name in names:
        value = field_at(payload, name)
        if isinstance(value, str):
            texts.append(value)
        elif value is not None:
            raise ItemError(detail=f"payload.{name} is {kind_of(value)}, not text")
    text = "\n".join(texts)
    if (not text or text.isspace()) and not may_be_blank:
        raise ItemError(detail=f"payload.{' and payload.'.join(names)} is {'empty' if texts else 'missing'}")
    return text


def text_of_record(
    payload: dict[str, Any], stored: StoredParts, *, template: str | None, fields: tuple[str, ...]
) -> str:
    """Return the text of a stored record: its document, unless a template or other fields are given.

    Raises:
        ItemError: The record cannot be loaded, or there is no text to embed.
    """
    if stored.fault is not None:
        raise ItemError(detail=stored.fault)
    if template is not None:
        return text_by_template(payload, template)
    if fields != (TEXT_FIELD,):
        return text_of_fields(payload, fields)
    text = stored.document or ""
    if stored.vector is None and not text.strip():
        fault = "has no document" if stored.document is None else "has a blank document"
        raise ItemError(detail=f"the record {fault}, so there is no text to embed; --keep-vectors copies its vector")
    return text


def own_vector(
    payload: dict[str, Any], field: str | None, *, dimension: int, model: str = DEFAULT_MODEL
) -> array[float] | None:
    """Return the vector that an item brings, as 32-bit floats; None for an item that is to be embedded.

    Args:
        payload: May hold it.
        field: Its dotted path, where it may also be JSON text; None: the usual field, if that is a list.
        dimension: Numbers in the collection's vectors; 0: any.
        model: The name of the model that gives the others; `none` for none.

    Raises:
        ItemError: It is not a vector of that dimension that Chroma can hold.
    """
    value = field_at(payload, field or VECTOR_FIELD)
    if value is None or (field is None and type(value) is not list):
        return None
    name = f"payload.{field or VECTOR_FIELD}"
    if isinstance(value, str | bytes):
        if not value.strip():  # an empty cell of a table
            return None
        try:
            value = parse(value.encode() if isinstance(value, str) else value)
        except ItemError as error:
            raise ItemError(detail=f"{name} is {error.detail}") from None
    floats = checked_vector(value, name)
    if dimension and len(floats) != dimension:
        wanted = f"the collection's vectors have {dimension}"
        if embeds(model):
            wanted = f"those of the model {model} have {dimension}; --model none takes vectors of any dimension"
        raise ItemError(detail=f"{name} has {len(floats)} numbers, and {wanted}")
    return floats


def checked_vector(value: object, name: str) -> array[float]:
    """Return a vector as 32-bit floats.

    Args:
        value: As it was parsed.
        name: Of the vector in an error, such as `payload.vector`.

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
