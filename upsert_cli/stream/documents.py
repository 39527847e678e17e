"""Item -> Document: the text that is embedded, flat metadata that Chroma takes as it is, and a hash of both.

Whatever Chroma would reject, change in silence or choke on for good is found here, row by row, before any call is made.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn, TypeAlias

from upsert_cli.errors import ItemError, Stage, TextFieldMissing
from upsert_cli.stream.items import Item, field_at
from upsert_cli.stream.json_text import MAX_NESTING, as_text, canonical, kind_of

Scalar: TypeAlias = str | int | float | bool

HASH_KEY = "upsert_hash"
HASH_BYTES = 16  # of 64 that BLAKE2b has; 128 bits make equal hashes of different rows unheard of

MAX_KEYS = 1_000  # metadata keys of a record; from 5,461 on Chroma's queue is broken for good
MAX_KEY = 1_024  # characters
MAX_BYTES = 8 << 20  # bytes of a text, and of the rest of a record; what a line of JSONL can hold
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1  # beyond, Chroma stores floats in silence
RESERVED_PREFIX = "chroma:"  # keys that Chroma drops in silence
SHOWN_FIELDS = 20  # fields in a message
SHOWN_KEY = 80  # characters of a key in a message

_ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How documents are made of items; whatever changes their vectors goes into their hash."""

    text_fields: tuple[str, ...] = ("text",)
    """Dotted paths in the payload; their texts are joined by line breaks."""

    identity: str
    """The model's identity and the options of embedding."""


class Document(NamedTuple):
    """One record as it is going to be stored, but for its vector; a tuple, since there is one for every row."""

    id: str
    text: str

    metadata: dict[str, Scalar]
    """The payload, flat, and `upsert_hash`."""

    upsert_hash: str
    """Two hashes in hex, `<text>.<metadata>`: what differs tells what has to be written."""

    item: Item

    converted: int
    """Values that had to be changed to fit, such as lists that became JSON text."""


def make_document(item: Item, recipe: Recipe) -> Document:
    """Makes the document of an item.

    Raises:
        ItemError: Its text is missing or blank, or its metadata is nothing that Chroma can hold.
    """
    payload = item.payload or {}
    text = _text(payload, recipe.text_fields)
    metadata: dict[str, Scalar] = {}
    converted = _flatten(payload, "", metadata, MAX_NESTING)
    if item.item_info:
        converted += _flatten(item.item_info, "item_info.", metadata, MAX_NESTING)
    if len(metadata) >= MAX_KEYS:
        _refuse(f"{len(metadata)} metadata keys, {MAX_KEYS - 1} are allowed")
    upsert_hash = metadata[HASH_KEY] = f"{_text_hash(text, recipe)}.{_metadata_hash(metadata, text, recipe)}"
    return Document(item.object_id, text, metadata, upsert_hash, item, converted)


def check_text_fields(item: Item, recipe: Recipe) -> None:
    """Makes sure that an item has a text at all; asked of the first one, before there is a task.

    Raises:
        TextFieldMissing: It has none of the text fields.
    """
    payload = item.payload or {}
    if all(field_at(payload, name, _ABSENT) is _ABSENT for name in recipe.text_fields):
        raise TextFieldMissing(
            source=item.source,
            row=item.row,
            wanted=recipe.text_fields,
            there=tuple(itertools.islice(_paths(payload), SHOWN_FIELDS)),
        )


def _paths(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields what `--text-field` could name."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"[:SHOWN_KEY]


# -- stored records -----------------------------------------------------------------------------------------------


def stored_fault(text: str, metadata: Mapping[str, Any], identity: str) -> str | None:
    """Returns what of a stored record is not as its hash says, in one line; None if all is.

    Args:
        text: The document.
        metadata: With `upsert_hash`.
        identity: Of the recipe that it was made with.
    """
    hashed = metadata.get(HASH_KEY)
    if not isinstance(hashed, str):
        return f"it has no {HASH_KEY}"
    own = {key: value for key, value in metadata.items() if key != HASH_KEY}
    of_text, _, of_metadata = hashed.partition(".")
    try:
        if _text_hash(text, Recipe(identity=identity)) != of_text:
            return f"its document is not the one of its {HASH_KEY}"
        if any(value == 0 and isinstance(value, float) for value in own.values()):
            return None  # Chroma stores -0.0 as 0.0, so that the hash says nothing
        if of_metadata not in _metadata_hashes(own, text, identity):
            return f"its metadata is not that of its {HASH_KEY}"
    except ItemError as error:
        return error.detail
    return None


def stored_hash(text: str, metadata: Mapping[str, Any], identity: str) -> str:
    """Returns the hash that a stored record should have.

    Raises:
        ItemError: It is too large to have one.
    """
    own = {key: value for key, value in metadata.items() if key != HASH_KEY}
    return f"{_text_hash(text, Recipe(identity=identity))}.{next(_metadata_hashes(own, text, identity))}"


def _metadata_hashes(metadata: dict[str, Any], text: str, identity: str) -> Iterator[str]:
    """Yields the hash for each field that the text may have come from, the likeliest first."""
    names = sorted((name for name, value in metadata.items() if value == text), key="text".__ne__)
    for name in (*names, ""):
        yield _metadata_hash(metadata, text, Recipe(text_fields=(name,), identity=identity))


# -- text ---------------------------------------------------------------------------------------------------------


def _text(payload: dict[str, Any], names: tuple[str, ...]) -> str:
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


# -- metadata -----------------------------------------------------------------------------------------------------


def _flatten(values: dict[str, Any], prefix: str, into: dict[str, Scalar], levels: int) -> int:
    """Puts values under dotted keys, and returns how many of them had to be changed."""
    converted = 0
    for name, value in values.items():
        kind = type(value)
        key = prefix + name
        if (
            kind is str
            or kind is bool
            or (kind is int and MIN_INTEGER <= value <= MAX_INTEGER)
            or (kind is float and -math.inf < value < math.inf)
        ):
            _check_key(key)
            if key in into:
                _refuse(f"the key {_shown(key)} occurs twice once nested keys are joined by dots")
            into[key] = value
        elif kind is dict and value:
            if levels == 0:
                _refuse(f"nested deeper than {MAX_NESTING} levels")
            converted += _flatten(value, key + ".", into, levels - 1)
        else:
            converted += 1
            if value is not None:
                _flatten({name: as_text(value)}, prefix, into, levels)
    return converted


@lru_cache(maxsize=4096)  # a file has few keys, and they come with every row
def _check_key(key: str) -> None:
    if not key:
        _refuse("a key of the payload is empty, which Chroma does not take")
    if len(key) > MAX_KEY:
        _refuse(f"the key {_shown(key)} has {len(key)} characters, {MAX_KEY} are allowed")
    if key[0] in "#$":
        _refuse(f"the key {_shown(key)} begins with `{key[0]}`, which Chroma does not take")
    if key.startswith(RESERVED_PREFIX):
        _refuse(f"the key {_shown(key)} begins with `{RESERVED_PREFIX}`, which is Chroma's own")
    if key == HASH_KEY:
        _refuse(f"the key {_shown(key)} is this tool's own")


def _shown(key: str) -> str:
    return f"`{key}`" if len(key) <= SHOWN_KEY else f"`{key[:SHOWN_KEY]}...`"


def _refuse(detail: str) -> NoReturn:
    raise ItemError(stage=Stage.READING, detail=detail)


# -- hashes -------------------------------------------------------------------------------------------------------


def _text_hash(text: str, recipe: Recipe) -> str:
    data = text.encode()
    if len(data) > MAX_BYTES:
        _refuse(f"the text has {len(data)} bytes, {MAX_BYTES} are allowed")
    hasher = _hasher(recipe.identity).copy()
    hasher.update(data)
    return hasher.hexdigest()


def _metadata_hash(metadata: dict[str, Scalar], text: str, recipe: Recipe) -> str:
    """Hashes what the text's hash does not cover: where it is the value of a key, the key's name stands for it."""
    field = recipe.text_fields[0]
    if metadata.get(field) == text:
        metadata = metadata.copy()
        del metadata[field]
    else:
        field = ""
    data = canonical(metadata)
    if len(data) > MAX_BYTES:
        _refuse(f"the metadata has {len(data)} bytes as JSON, {MAX_BYTES} are allowed")
    hasher = _hasher(field).copy()
    hasher.update(data)
    return hasher.hexdigest()


@lru_cache(maxsize=64)
def _hasher(purpose: str) -> hashlib.blake2b:
    """Returns a hash to copy, which costs half of making one; its values are its purpose's alone."""
    person = hashlib.blake2b(purpose.encode(), digest_size=hashlib.blake2b.PERSON_SIZE).digest()
    return hashlib.blake2b(digest_size=HASH_BYTES, person=person)
