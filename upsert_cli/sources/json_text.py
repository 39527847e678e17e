"""JSON text as values without loss, and any value of a file as JSON text.

orjson is three times as fast as the standard library, but silently turns integers beyond 64 bits into floats and NaN
into null. This module prevents both, for all formats.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from upsert_cli.errors import ItemError

MAX_NESTING = 100  # levels; orjson writes at most 254, and Python's own stack ends at about 900

_TOO_DEEP = f"nested deeper than {MAX_NESTING} levels"

MIN_EXACT, MAX_EXACT = -float(2**63), float(2**63)  # orjson makes floats of integers beyond, and of no others

_ONE_MICROSECOND = datetime.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ExactText:
    """The text of a value that no Python type holds exactly, such as a timestamp with nanoseconds.

    It is not a `str`, so that all values of a column are treated alike: one with nanoseconds is not accepted as text.
    """

    text: str

    def __str__(self) -> str:
        return self.text


class Pairs(list[Any]):
    """The pairs of a map that repeats a key, so that it is not an object."""


def parse(text: bytes | str) -> object:
    """Return the value of a JSON text, with integers of any size.

    Raises:
        ItemError: It is not JSON, not UTF-8, or nested too deep; the detail says where.
    """
    try:
        value = orjson.loads(text)
        # Parsed again only if a value suggests it: looking for long numbers in every text costs more than parsing.
        return json.loads(text) if _has_huge(value.values() if type(value) is dict else (value,)) else value
    except orjson.JSONDecodeError as error:
        raise ItemError(detail=_what_is_wrong(text.encode() if isinstance(text, str) else text, error)) from None
    except RecursionError:
        raise ItemError(detail=_TOO_DEEP) from None


def parse_plain(text: bytes) -> object:
    """Return the value of a JSON text; integers beyond 64 bits become floats, as in chromadb's own client.

    Raises:
        ValueError: It is not JSON, not UTF-8, or nested too deep.
    """
    return orjson.loads(text)


def _has_huge(values: Iterable[Any]) -> bool:
    """Tell whether a float among the values may have been an integer beyond 64 bits."""
    for value in values:
        kind = type(value)
        if kind is str:
            continue
        if kind is float:
            if not MIN_EXACT < value < MAX_EXACT:
                return True
        elif (kind is dict and _has_huge(value.values())) or (kind is list and _has_huge(value)):
            return True
    return False


_PLAIN = frozenset([str, int, bool, type(None)])  # types whose lists, such as a list of tags, are JSON already


def canonical(value: object) -> bytes:
    """Return equal bytes for equal values only; 1, 1.0, True and "1" are different.

    Args:
        value: Of types that JSON knows, with integers of 64 bits and finite floats.
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def as_json(value: object) -> bytes:
    """Return the JSON text of a value, in one line and with its keys in their order; see `canonical`."""
    return orjson.dumps(value)


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
            detail = f"{name} holds bytes that are {_where_not_utf8(value, fault)}"
            raise ItemError(detail=detail) from None
    if isinstance(value, list):
        return value if _PLAIN.issuperset(map(type, value)) else [as_utf8(inner, name) for inner in value]
    if isinstance(value, dict):
        return {key: as_utf8(inner, f"{name}.{key}") for key, inner in value.items()}
    return value


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


def as_text(value: object) -> str:
    """Return any value of a row as text: a scalar by itself, a container as JSON with sorted keys.

    Raises:
        ItemError: It is nested too deep.
    """
    if type(value) is not list or not _PLAIN.issuperset(map(type, value)):
        value = plain(value)
    if isinstance(value, str):
        return value
    try:
        return canonical(value).decode()
    except orjson.JSONEncodeError:  # an integer beyond 64 bits
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def plain(value: object, *, levels: int = MAX_NESTING) -> object:
    """Return a value in types that JSON knows: dates and decimals as text, bytes as base64, NaN as the text `NaN`.

    Raises:
        ItemError: It is nested deeper than `levels`.
    """
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else json.dumps(value)
        case dict() | list() | tuple() if levels == 0:
            raise ItemError(detail=_TOO_DEEP)
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


# -- reasons ------------------------------------------------------------------------------------------------------

_ONE_A_LINE = "a JSONL file has one whole object on each line"


def _what_is_wrong(text: bytes, error: orjson.JSONDecodeError) -> str:
    """Return the reason in one line, with a hint if the cause is a usual one."""
    try:
        whole = text.decode()
    except UnicodeDecodeError as fault:
        return not_utf8(text, fault)
    if "depth limit" in error.msg:
        return _TOO_DEEP
    stripped = whole.strip()
    if stripped in _BRACKETS:
        return f"`{stripped}` alone on its line: {_ONE_A_LINE} (`jq -c` rewrites pretty-printed JSON)"
    if stripped.endswith("},") and stripped.startswith("{"):
        return f"a comma follows the object: {_ONE_A_LINE} (`jq -c '.[]'` rewrites an array)"
    if "infinity" in error.msg:
        return _out_of_range(whole)
    return f"not JSON: {error.msg}, column {error.pos + 1}{_hint(whole, error)}"


def _out_of_range(text: str) -> str:
    """Return which number is larger than a float can be, although it is valid JSON."""
    try:
        path = _path_of_infinity(json.loads(text))
    except (ValueError, RecursionError):  # what follows the number is not JSON
        path = None
    where = f"{path}: " if path else ""
    return f"{where}a number is out of range (at most {sys.float_info.max:.2g}); write it as text"


def _path_of_infinity(value: object) -> str | None:
    """Return the dotted path that leads to the first infinite number; None without one."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        if isinstance(one, float) and math.isinf(one):
            return str(name)
        if (rest := _path_of_infinity(one)) is not None:
            return f"{name}.{rest}"
    return None


_BRACKETS = frozenset(["[", "]", "{", "}", "[{", "}]", "},", "],", "},{", "}, {"])


def not_utf8(text: bytes, fault: UnicodeDecodeError) -> str:
    """Return why a text is not UTF-8, with a command that corrects the likeliest cause."""
    where = _where_not_utf8(text, fault)
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return f"{where} (a UTF-16 file; `iconv -f UTF-16 -t UTF-8` rewrites it)"
    if text[fault.start] in _WINDOWS_1252:
        return f"{where} (if the file is Windows-1252, `iconv -f WINDOWS-1252 -t UTF-8` rewrites it)"
    return where


def _where_not_utf8(text: bytes, fault: UnicodeDecodeError) -> str:
    return f"not UTF-8: byte 0x{text[fault.start]:02x} at byte {fault.start + 1}"


_WINDOWS_1252 = frozenset(range(0x80, 0xFE)) - frozenset(b"\x81\x8d\x8f\x90\x9d")  # bytes that are letters or signs
_CSV = re.compile(r"[^{\[][^,;\t]*[,;\t][^,;\t]")


def _hint(text: str, error: orjson.JSONDecodeError) -> str:
    begin = text.lstrip(" \t\r\n")
    if begin.startswith("\x1e"):
        return " (a JSON text sequence of RFC 7464; `tr -d '\\036'` makes JSONL of it)"
    if "after document" in error.msg and text[error.pos] in "{[":
        return f" ({_ONE_A_LINE}; `jq -c .` puts each of several values on a line of its own)"
    if re.match(r"-?(nan|inf)", text[error.pos : error.pos + 4], re.IGNORECASE):
        return " (NaN and Infinity are not JSON)"
    if re.match(r'"[^"]*"\s*:', begin):
        return f" ({_ONE_A_LINE}; `jq -c` rewrites pretty-printed JSON)"
    if _CSV.match(begin):
        return " (if the file is CSV, --format csv reads it)"
    return ""
