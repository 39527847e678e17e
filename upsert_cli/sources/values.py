"""Values of rows in any format: their kinds, their text, and their form in plain data.

Fields of nested objects are named by dotted paths such as `author.name`; a key that contains the dots comes first.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
from dataclasses import dataclass
from typing import Any

from upsert_cli.errors import ItemError
from upsert_cli.sources.json_text import MAX_NESTING, TOO_DEEP, canonical, where_not_utf8

_ONE_MICROSECOND = datetime.timedelta(microseconds=1)
_PLAIN = frozenset([str, int, bool, type(None)])  # types whose lists, such as a list of tags, are JSON already


@dataclass(frozen=True, slots=True)
class ExactText:
    """The text of a value that no Python type holds exactly, such as a timestamp with nanoseconds.

    Not a `str`, so that all values of a column are treated alike, and no dates are taken for texts.
    """

    text: str

    def __str__(self) -> str:
        return self.text


class Pairs(list[Any]):
    """The pairs of a map that repeats a key, so that no object can hold them."""


_KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    bytes: "bytes",
    datetime.datetime: "a timestamp",
    datetime.date: "a date",
    datetime.time: "a time of day",
    datetime.timedelta: "a duration",
    decimal.Decimal: "a decimal number",
    ExactText: "a date or time",
    Pairs: "a map that repeats a key",
}


def kind_of(value: object) -> str:
    """Return the kind of a value in the words of JSON, such as `a number`."""
    return _KINDS.get(type(value)) or f"of the type {type(value).__name__}"


def as_utf8(value: object, name: str) -> object:
    """Return a value with text in place of bytes, at any depth.

    Raises:
        ItemError: Some bytes are not UTF-8; the detail begins with the field's name.
    """
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as fault:
            raise ItemError(detail=f"{name} holds bytes that are {where_not_utf8(value, fault)}") from None
    if isinstance(value, list):
        return value if _PLAIN.issuperset(map(type, value)) else [as_utf8(inner, name) for inner in value]
    if isinstance(value, dict):
        return {key: as_utf8(inner, f"{name}.{key}") for key, inner in value.items()}
    return value


def as_text(value: object) -> str:
    """Return any value of a row as text: a scalar by itself, a container as JSON with sorted keys.

    Raises:
        ItemError: The value is nested too deep.
    """
    if type(value) is not list or not _PLAIN.issuperset(map(type, value)):
        value = plain(value)
    if isinstance(value, str):
        return value
    try:
        return canonical(value).decode()
    except TypeError:  # an integer beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def plain(value: object, *, levels: int = MAX_NESTING) -> object:
    """Return a value in types that JSON has: dates and decimals as text, bytes as base64, NaN as the text `NaN`.

    Raises:
        ItemError: The value is nested deeper than `levels`.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else json.dumps(value)
        case dict() | list() | tuple() if levels == 0:
            raise ItemError(detail=TOO_DEEP)
        case dict():
            return {str(key): plain(inner, levels=levels - 1) for key, inner in value.items()}
        case list() | tuple():
            return [plain(inner, levels=levels - 1) for inner in value]
    return _scalar_text(value)


def _scalar_text(value: object) -> str:
    match value:
        case datetime.date() | datetime.time():  # a datetime is a date
            return value.isoformat()
        case datetime.timedelta():
            return duration_text(value // _ONE_MICROSECOND * 1000)
        case bytes():
            return base64.b64encode(value).decode("ascii")
    return str(value)


def duration_text(nanos: int) -> str:
    """Return an ISO 8601 duration in seconds, such as `-PT90.5S`; exact, unlike `total_seconds`."""
    seconds, rest = divmod(abs(nanos), 10**9)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{'-' if nanos < 0 else ''}PT{seconds}{fraction}S"


def field_at(values: dict[str, Any], path: str, default: object = None) -> object:
    """Return the field that a dotted path leads to, or `default`."""
    if path in values:
        return values[path]
    found: object = values
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return default
        found = found[name]
    return found


def without_field(values: dict[str, Any], path: str) -> dict[str, Any]:
    """Return values without the field at a path, and without the objects that this empties."""
    if path in values:  # nearly always
        others = values.copy()
        del others[path]
        return others
    return _without(values, path.split("."))


def _without(values: dict[str, Any], names: list[str]) -> dict[str, Any]:
    name, *inner_names = names
    if name not in values:
        return values
    inner = values[name]
    if inner_names:
        left = _without(inner, inner_names) if isinstance(inner, dict) else inner
        if left is inner:
            return values
        if left:
            return values | {name: left}
    return {key: value for key, value in values.items() if key != name}


def with_field(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return values with another value in the field at a path, which exists."""
    return _with(values, [path] if path in values else path.split("."), value)


def _with(values: dict[str, Any], names: list[str], value: object) -> dict[str, Any]:
    name, *inner_names = names
    return values | {name: _with(values[name], inner_names, value) if inner_names else value}
