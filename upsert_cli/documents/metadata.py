"""Payload -> flat metadata that Chroma stores unchanged; an item with other values is rejected here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from math import isfinite
from typing import Any, TypeAlias

from upsert_cli.documents.hashing import HASH_KEY
from upsert_cli.documents.recipe import TEXT_FIELD, Recipe
from upsert_cli.errors import ItemError
from upsert_cli.sources.item import Item
from upsert_cli.sources.json_text import MAX_NESTING
from upsert_cli.sources.values import as_text, field_at, kind_of, without_field

Scalar: TypeAlias = str | int | float | bool
Value: TypeAlias = Scalar | list[Any]
"""A list holds one scalar kind; lists stay lists only with --keep-lists, or in copies of records."""

INFO_PREFIX = "item_info."  # of the keys from an item's `item_info`
SCOPE_KEY = "upsert_scope"
SCOPE_BYTES = 8  # of the digest of sources; equal digests of different sources are practically impossible
MAX_KEYS = 1_000  # metadata keys of a record; from 5,461 on Chroma's queue is broken for good
MAX_KEY = 1_024  # characters
MAX_LIST = 1_000  # values in all lists of a record; some 6,000 break Chroma's queue for good
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1  # beyond, Chroma silently stores floats
RESERVED_PREFIX = "chroma:"  # keys that Chroma silently drops
SHOWN_KEY = 80  # characters of a key in a message
_NUMBERS = {int: "an integer beyond 64 bits", float: "a number that is not finite"}  # other numbers stay numbers
_ALWAYS_KEPT = frozenset([str, bool])


def scope_of(sources: Iterable[str]) -> str:
    """Return the default scope of a load, which depends on the set of its sources alone.

    Args:
        sources: The absolute names of files, folders and globs in the task.
    """
    names = "\0".join(sorted(set(sources))).encode("utf-8", "surrogatepass")
    return f"sources-{hashlib.blake2b(names, digest_size=SCOPE_BYTES).hexdigest()}"


def metadata_of(payload: dict[str, Any], item: Item, recipe: Recipe) -> tuple[dict[str, Value], dict[str, str]]:
    """Return the flat metadata of an item, without a hash, and the kinds of the changed values, by their keys.

    Raises:
        ItemError: Chroma cannot hold the metadata.
    """
    metadata: dict[str, Value] = {}
    converted: dict[str, str] = {}
    stored = item.stored
    keep_lists = recipe.keep_lists or stored is not None
    if recipe.metadata_fields is None:
        converted = _flatten(_without_text(payload, item, recipe), metadata, keep_lists=keep_lists)
    for name in recipe.metadata_fields or ():
        if (value := field_at(payload, name)) is not None:
            # Separately, since one path may lead into the value of another.
            chosen: dict[str, Value] = {}
            converted |= _flatten({name: value}, chosen, keep_lists=keep_lists)
            metadata |= chosen
    if stored is not None and converted:
        raise ItemError(
            detail=f"its list {shown_key(next(iter(converted)))} would become text; a load keeps {MAX_LIST:,} values"
        )
    if item.item_info:
        converted |= _flatten(item.item_info, metadata, prefix=INFO_PREFIX, keep_lists=recipe.keep_lists)
    if recipe.scope is not None:
        metadata[SCOPE_KEY] = recipe.scope
    if len(metadata) >= MAX_KEYS:
        raise ItemError(detail=f"{len(metadata)} metadata keys, {MAX_KEYS - 1} are allowed")
    return metadata, converted


def _without_text(payload: dict[str, Any], item: Item, recipe: Recipe) -> dict[str, Any]:
    """Return a payload without the fields that make up the document, since a record holds the document already."""
    if item.stored is not None:  # all metadata of the record is kept
        return payload if item.stored.has_own_text else without_field(payload, TEXT_FIELD)
    for path in recipe.text_paths:
        payload = without_field(payload, path)
    return payload


def _flatten(
    values: dict[str, Any],
    into: dict[str, Value],
    *,
    prefix: str = "",
    keep_lists: bool = False,
    levels: int = MAX_NESTING,
) -> dict[str, str]:
    """Add values under dotted keys, without the nulls, and return the kinds of those that became text, by their keys.

    Args:
        values: The payload, or an object in it.
        into: The metadata that the values are added to; a key that it has already is an error.
        prefix: The beginning of all keys.
        keep_lists: Keep lists of one scalar kind as lists.
        levels: How deep objects may be nested.
    """
    converted: dict[str, str] = {}
    for name, value in values.items():
        kind = type(value)
        key = prefix + name
        if (
            kind in _ALWAYS_KEPT
            or (kind is int and MIN_INTEGER <= value <= MAX_INTEGER)
            or (kind is float and isfinite(value))
            or (kind is list and keep_lists and _stays_a_list(value, into))
        ):
            _check_key(key)
            if key in into:
                raise ItemError(detail=f"the key {shown_key(key)} occurs twice once nested keys are joined by dots")
            into[key] = value
        elif kind is dict and value:
            if levels == 0:
                raise ItemError(detail=f"nested deeper than {MAX_NESTING} levels")
            converted |= _flatten(value, into, prefix=f"{key}.", keep_lists=keep_lists, levels=levels - 1)
        elif value is not None:
            _flatten({name: as_text(value)}, into, prefix=prefix)
            converted[key] = _NUMBERS.get(kind, kind_of(value))
    return converted


def shown_key(key: str) -> str:
    """Return a key for a message; only the beginning of a long one."""
    return f"`{key}`" if len(key) <= SHOWN_KEY else f"`{key[:SHOWN_KEY]}...`"


def _stays_a_list(values: list[Any], kept: dict[str, Value]) -> bool:
    """Check that Chroma can hold a list unchanged, in addition to the lists among the values kept so far."""
    kinds = set(map(type, values))
    if len(kinds) != 1 or len(values) + sum(len(one) for one in kept.values() if type(one) is list) > MAX_LIST:
        return False
    [kind] = kinds
    return (
        kind is str
        or kind is bool
        or (kind is int and min(values) >= MIN_INTEGER and max(values) <= MAX_INTEGER)
        or (kind is float and all(map(isfinite, values)))
    )


@lru_cache(maxsize=4096)  # a file has few keys, and all its rows have them
def _check_key(key: str) -> None:
    if not key:
        raise ItemError(detail="a key of the payload is empty, which Chroma does not accept")
    if len(key) > MAX_KEY:
        raise ItemError(detail=f"the key {shown_key(key)} has {len(key)} characters, {MAX_KEY} are allowed")
    if key[0] in "#$":
        raise ItemError(detail=f"the key {shown_key(key)} begins with `{key[0]}`, which Chroma does not accept")
    if key.startswith(RESERVED_PREFIX):
        raise ItemError(
            detail=f"the key {shown_key(key)} begins with `{RESERVED_PREFIX}`, which is reserved for Chroma"
        )
    if key in (HASH_KEY, SCOPE_KEY):
        raise ItemError(detail=f"the key {shown_key(key)} is this tool's own")
