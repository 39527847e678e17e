"""JSON text as values without loss, and plain values as JSON text.

orjson is three times as fast as the standard library, but silently turns integers beyond 64 bits into floats and NaN
into null. This module prevents the first, and `values.plain` the second.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import orjson

from upsert_cli.errors import ItemError
from upsert_cli.sources.json_faults import TOO_DEEP, fault_in_json

MIN_EXACT, MAX_EXACT = -float(2**63), float(2**63)  # orjson makes floats of integers beyond, and of no others


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
        raise ItemError(detail=fault_in_json(content, error.msg, error.pos)) from None
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
