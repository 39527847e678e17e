"""JSON text as values without loss, plain values as JSON text, and the reasons why a text is not JSON or not UTF-8.

orjson is three times as fast as the standard library, but silently turns integers beyond 64 bits into floats and NaN
into null. This module prevents the first, and `values.plain` the second.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable
from typing import Any

import orjson

from upsert_cli.errors import ItemError

MIN_EXACT, MAX_EXACT = -float(2**63), float(2**63)  # orjson makes floats of integers beyond, and of no others
MAX_NESTING = 100  # levels; orjson writes at most 254, and Python's own stack ends at about 900
TOO_DEEP = f"nested deeper than {MAX_NESTING} levels"
_ONE_A_LINE = "a JSONL file has one whole object on each line"
_BRACKETS = frozenset(["[", "]", "{", "}", "[{", "}]", "},", "],", "},{", "}, {"])
_WINDOWS_1252 = frozenset(range(0x80, 0xFE)) - frozenset(b"\x81\x8d\x8f\x90\x9d")  # bytes that are letters or signs
_CSV = re.compile(r"[^{\[][^,;\t]*[,;\t][^,;\t]")


def parse(text: bytes | str) -> object:
    """Return the value of a JSON text, with integers of any size.

    Raises:
        ItemError: The text is not JSON, not UTF-8, or nested too deep; the detail has the position.
    """
    try:
        value = orjson.loads(text)
        # Parsed again only if a value suggests it: looking for long numbers in every text costs more than parsing.
        return json.loads(text) if _has_huge(value.values() if type(value) is dict else (value,)) else value
    except orjson.JSONDecodeError as error:
        content = text.encode() if isinstance(text, str) else text
        raise ItemError(detail=_fault_in_json(content, error.msg, error.pos)) from None
    except RecursionError:
        raise ItemError(detail=TOO_DEEP) from None


def parse_plain(text: bytes) -> object:
    """Return the value of a JSON text; integers beyond 64 bits become floats, as in chromadb's own client.

    Raises:
        ValueError: The text is not JSON, not UTF-8, or nested too deep.
    """
    return orjson.loads(text)


def canonical(value: object) -> bytes:
    """Return the JSON text of a value, the same for equal values only; 1, 1.0, True and "1" are different.

    Args:
        value: Of types that JSON has, with finite floats.

    Raises:
        TypeError: The value has an integer beyond 64 bits.
    """
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def as_json(value: object) -> bytes:
    """Return the JSON text of a value, in one line and with its keys in their order; see `canonical`."""
    return orjson.dumps(value)


def _has_huge(values: Iterable[Any]) -> bool:
    """Check whether a float among the values may have been an integer beyond 64 bits."""
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


def _fault_in_json(text: bytes, message: str, position: int) -> str:
    """Return the reason why a text is not JSON, in one line.

    Args:
        text: Such as a line of a file.
        message: The parser's own.
        position: Of the fault, in characters from 0.
    """
    try:
        whole = text.decode()
    except UnicodeDecodeError as fault:
        return not_utf8(text, fault)
    if "depth limit" in message:
        return TOO_DEEP
    stripped = whole.strip()
    if stripped in _BRACKETS:
        return f"`{stripped}` alone on its line: {_ONE_A_LINE} (`jq -c` rewrites pretty-printed JSON)"
    if stripped.endswith("},") and stripped.startswith("{"):
        return f"a comma follows the object: {_ONE_A_LINE} (`jq -c '.[]'` rewrites an array)"
    if "infinity" in message:
        return _out_of_range(whole)
    return f"not JSON: {message}, column {position + 1}{_hint(whole, message, position)}"


def _hint(text: str, message: str, position: int) -> str:
    begin = text.lstrip(" \t\r\n")
    if begin.startswith("\x1e"):
        return " (a JSON text sequence of RFC 7464; `tr -d '\\036'` makes JSONL of it)"
    if "after document" in message and text[position] in "{[":
        return f" ({_ONE_A_LINE}; `jq -c .` puts each of several values on a line of its own)"
    if re.match(r"-?(nan|inf)", text[position : position + 4], re.IGNORECASE):
        return " (NaN and Infinity are not JSON)"
    if re.match(r'"[^"]*"\s*:', begin):
        return f" ({_ONE_A_LINE}; `jq -c` rewrites pretty-printed JSON)"
    if _CSV.match(begin):
        return " (if the file is CSV, --format csv reads it)"
    return ""


def _out_of_range(text: str) -> str:
    """Return the reason for a number that JSON allows, but that is larger than any float."""
    try:
        path = _path_of_infinity(json.loads(text))
    except (ValueError, RecursionError):  # the text after the number is not JSON
        path = None
    where = f"{path}: " if path else ""
    return f"{where}a number is out of range (at most {sys.float_info.max:.2g}); write it as text"


def _path_of_infinity(value: object) -> str | None:
    """Return the dotted path that leads to the first infinite number, or None without such a number."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        if isinstance(one, float) and math.isinf(one):
            return str(name)
        if (rest := _path_of_infinity(one)) is not None:
            return f"{name}.{rest}"
    return None


def not_utf8(text: bytes, fault: UnicodeDecodeError) -> str:
    """Return the reason why a text is not UTF-8, with a command that corrects the likeliest cause."""
    where = where_not_utf8(text, fault)
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return f"{where} (a UTF-16 file; `iconv -f UTF-16 -t UTF-8` rewrites it)"
    if text[fault.start] in _WINDOWS_1252:
        return f"{where} (if the file is Windows-1252, `iconv -f WINDOWS-1252 -t UTF-8` rewrites it)"
    return where


def where_not_utf8(text: bytes, fault: UnicodeDecodeError) -> str:
    """Return the first byte that is not UTF-8, and its position from 1."""
    return f"not UTF-8: byte 0x{text[fault.start]:02x} at byte {fault.start + 1}"
