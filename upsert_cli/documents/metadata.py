"""A payload -> flat metadata that Chroma takes as it is; what it would refuse, change or choke on is found here."""

from __future__ import annotations

from functools import lru_cache
from math import isfinite
from typing import Any, NoReturn, TypeAlias

from upsert_cli.documents.hashing import HASH_KEY
from upsert_cli.documents.scope import SCOPE_KEY
from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.json_text import MAX_NESTING, as_text

Scalar: TypeAlias = str | int | float | bool
Value: TypeAlias = Scalar | list[Any]
"""A list only of one scalar kind, and only where lists are kept."""

MAX_KEYS = 1_000  # metadata keys of a record; from 5,461 on Chroma's queue is broken for good
MAX_KEY = 1_024  # characters
MAX_LIST = 1_000  # values in all lists of a record; some 6,000 break Chroma's queue for good
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1  # beyond, Chroma stores floats in silence
RESERVED_PREFIX = "chroma:"  # keys that Chroma drops in silence
SHOWN_KEY = 80  # characters of a key in a message


def flatten(
    values: dict[str, Any],
    into: dict[str, Value],
    *,
    prefix: str = "",
    keep_lists: bool = False,
) -> int:
    """Puts values under dotted keys, and returns how many of them had to be changed.

    Args:
        values: The payload, or any part of it.
        into: What is there already is never replaced.
        prefix: Of all keys.
        keep_lists: Whether lists of one scalar kind stay lists.

    Raises:
        ItemError: Chroma cannot hold them.
    """
    return _flatten(values, prefix, into, keep_lists, MAX_NESTING)


def _flatten(values: dict[str, Any], prefix: str, into: dict[str, Value], keep_lists: bool, levels: int) -> int:  # noqa: FBT001  # by place: it is called for every object
    converted = 0
    for name, value in values.items():
        kind = type(value)
        key = prefix + name
        if (
            kind is str
            or kind is bool
            or (kind is int and MIN_INTEGER <= value <= MAX_INTEGER)
            or (kind is float and isfinite(value))
            or (kind is list and keep_lists and _stays_a_list(value, into))
        ):
            _check_key(key)
            if key in into:
                _refuse(f"the key {shown(key)} occurs twice once nested keys are joined by dots")
            into[key] = value
        elif kind is dict and value:
            if levels == 0:
                _refuse(f"nested deeper than {MAX_NESTING} levels")
            converted += _flatten(value, key + ".", into, keep_lists, levels - 1)
        else:
            converted += 1
            if value is not None:
                _flatten({name: as_text(value)}, prefix, into, keep_lists, levels)
    return converted


def shown(key: str) -> str:
    """Returns a key for a message."""
    return f"`{key}`" if len(key) <= SHOWN_KEY else f"`{key[:SHOWN_KEY]}...`"


def _stays_a_list(values: list[Any], beside: dict[str, Value]) -> bool:
    """Tells whether Chroma can hold a list as it is, next to the lists that there are already."""
    kinds = set(map(type, values))
    if len(kinds) != 1 or len(values) + sum(len(one) for one in beside.values() if type(one) is list) > MAX_LIST:
        return False
    [kind] = kinds
    return (
        kind is str
        or kind is bool
        or (kind is int and min(values) >= MIN_INTEGER and max(values) <= MAX_INTEGER)
        or (kind is float and all(map(isfinite, values)))
    )


@lru_cache(maxsize=4096)  # a file has few keys, and they come with every row
def _check_key(key: str) -> None:
    if not key:
        _refuse("a key of the payload is empty, which Chroma does not take")
    if len(key) > MAX_KEY:
        _refuse(f"the key {shown(key)} has {len(key)} characters, {MAX_KEY} are allowed")
    if key[0] in "#$":
        _refuse(f"the key {shown(key)} begins with `{key[0]}`, which Chroma does not take")
    if key.startswith(RESERVED_PREFIX):
        _refuse(f"the key {shown(key)} begins with `{RESERVED_PREFIX}`, which is Chroma's own")
    if key in (HASH_KEY, SCOPE_KEY):
        _refuse(f"the key {shown(key)} is this tool's own")


def _refuse(detail: str) -> NoReturn:
    raise ItemError(stage=Stage.READING, detail=detail)
