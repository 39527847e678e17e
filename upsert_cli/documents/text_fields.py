"""A payload -> the text that is embedded: from its text fields, or by a template."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from upsert_cli.errors import ItemError, Stage, UsageFault
from upsert_cli.sources.item import field_at, with_field
from upsert_cli.sources.json_text import as_text, as_utf8, kind_of

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<path>[^{}]*)\}|\\[nt\\]|[{}]")
_ESCAPES = {"{{": "{", "}}": "}", r"\n": "\n", r"\t": "\t", "\\\\": "\\"}
"""What stands for itself; a shell hands a typed backslash-n over as it is."""


class TemplatePart(NamedTuple):
    """A piece of a template."""

    literal: str
    path: str | None
    """Dotted path of the field that follows; None at the end."""


@lru_cache(maxsize=16)
def parse_template(template: str) -> tuple[TemplatePart, ...]:
    """Takes a template apart; a field is only ever a path of keys, whatever Python could make of it.

    Raises:
        UsageFault: A brace is alone, or it names no field.
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
    """Returns the paths that a template names, each once."""
    return tuple(dict.fromkeys(part.path for part in parse_template(template) if part.path is not None))


def with_texts(payload: dict[str, Any], paths: tuple[str, ...]) -> dict[str, Any]:
    """Return a payload with text in place of the bytes in some fields: what is embedded is never base64.

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


_MAY_HOLD_BYTES = frozenset([bytes, list, dict])


def text_by_template(payload: dict[str, Any], template: str) -> str:
    """Fills a template in.

    Raises:
        ItemError: The payload lacks one of its fields, or all of it is blank.
    """
    pieces = []
    for literal, path in parse_template(template):
        pieces.append(literal)
        if path is not None:
            value = field_at(payload, path)
            if value is None:
                _refuse(f"payload.{path} is missing, and the template needs it")
            pieces.append(as_text(value))
    text = "".join(pieces)
    if not text or text.isspace():
        _refuse("the text by the template is empty")
    return text


def text_of_fields(payload: dict[str, Any], names: tuple[str, ...]) -> str:
    """Joins the texts of some fields by line breaks.

    Raises:
        ItemError: There are none, they are blank, or one is no text.
    """
    parts = []
    for name in names:
        value = field_at(payload, name)
        if isinstance(value, str):
            parts.append(value)
        elif value is not None:
            _refuse(f"payload.{name} is {kind_of(value)}, not text")
    text = "\n".join(parts)
    if not text or text.isspace():
        _refuse(f"payload.{' and payload.'.join(names)} is {'empty' if parts else 'missing'}")
    return text


def _refuse(detail: str) -> None:
    raise ItemError(stage=Stage.READING, detail=detail)
