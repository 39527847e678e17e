"""Rows that Chroma would reject, change silently or be poisoned by, found before they are sent to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from upsert_cli.store.base import WriteBatch
from upsert_cli.store.chroma.faults import string_fault
from upsert_cli.store.stamp import dimension_mismatch
from upsert_cli.store.target import Target

# Some rows are not rejected but queued, and then fail at every later call on the collection, for good. The engine's
# limits are 5,460 keys, some 6,000 values in all lists of a row, and 32,766 removed keys; ours are far below.
MAX_KEYS = 1_000
MAX_LIST_VALUES = 1_000
MAX_REMOVED_KEYS = 10_000
INT64 = range(-(2**63), 2**63)  # Chroma turns larger integers into floats silently
KEY_CHARACTERS = 60  # characters of a key in a reason
# Quotas of Chroma Cloud, by its documentation (November 2026): https://docs.trychroma.com/cloud/quotas-limits
CLOUD_ID_BYTES = 128
CLOUD_TEXT_BYTES = 16_384
CLOUD_KEYS = 32  # of a record's metadata
CLOUD_KEY_BYTES = 36
CLOUD_VALUE_BYTES = 4_096


def row_faults(rows: WriteBatch, target: Target, *, in_cloud: bool) -> dict[int, str]:
    """Return one line of reason for each faulty row, by its index.

    Raises:
        Refusal: The vectors are not of the collection's dimension.
    """
    texts = [text or "" for text in rows.texts] if rows.vectors is not None else [""] * len(rows.ids)
    faults = {
        number: fault
        for number, row in enumerate(zip(rows.ids, texts, rows.metadatas, strict=True))
        if (fault := _row_fault(*row) or (_cloud_fault(*row) if in_cloud else None)) is not None
    }
    if rows.vectors is not None and len(rows.ids):
        import numpy as np

        if rows.vectors.shape[1] != target.model.dimension:
            raise dimension_mismatch(target, had=target.model.dimension, asked=rows.vectors.shape[1])
        for number in np.flatnonzero(~np.isfinite(rows.vectors).all(axis=1)):
            faults.setdefault(int(number), "its vector has a number that is not finite")
        for number in np.flatnonzero(~rows.vectors.any(axis=1)):
            faults.setdefault(int(number), "its vector is all zeros, which no other is near to")
    return faults


def _cloud_fault(identifier: str, text: str, metadata: Mapping[str, Any]) -> str | None:
    """Return one line of reason why a row is over the quotas of Chroma Cloud, or None."""
    values = {key: value for key, value in metadata.items() if value is not None}
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    sizes = (
        ("the id has", _bytes(identifier), "bytes", CLOUD_ID_BYTES),
        ("the text has", _bytes(text), "bytes", CLOUD_TEXT_BYTES),
        ("the metadata has", len(values), "keys", CLOUD_KEYS),
        *((f"the metadata key {_short(key)} has", _bytes(key), "bytes", CLOUD_KEY_BYTES) for key in values),
        *((f"metadata {_short(key)} has", _bytes(value), "bytes", CLOUD_VALUE_BYTES) for key, value in texts.items()),
    )
    over = (
        f"{what} {size:,} {unit}, and the cloud takes {limit:,}" for what, size, unit, limit in sizes if size > limit
    )
    return next(over, None)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _row_fault(identifier: Any, text: Any, metadata: Any) -> str | None:
    """Return one line of reason why Chroma cannot store a row, or None."""
    return (
        string_fault("the id", identifier)
        or (None if identifier else "the id is empty")
        or string_fault("the text", text)
        or _metadata_fault(metadata)
    )


def _metadata_fault(metadata: Any) -> str | None:
    if not isinstance(metadata, Mapping) or not metadata:
        return "the metadata is empty" if isinstance(metadata, Mapping) else "the metadata is not an object"
    removed = sum(value is None for value in metadata.values())
    if len(metadata) - removed > MAX_KEYS:
        return f"the metadata has {len(metadata) - removed} keys, and {MAX_KEYS} are the limit"
    if removed > MAX_REMOVED_KEYS:
        return f"{removed} metadata keys are to be removed, and {MAX_REMOVED_KEYS} are the limit"
    listed = 0
    for key, value in metadata.items():
        if fault := _key_fault(key) or _value_fault(key, value):
            return fault
        listed += len(value) if isinstance(value, list) else 0
    if listed > MAX_LIST_VALUES:
        return f"the lists in the metadata have {listed} values, and {MAX_LIST_VALUES} are the limit"
    return None


def _key_fault(key: Any) -> str | None:
    if not isinstance(key, str):
        return f"a metadata key is of type {type(key).__name__}, not a string"
    if not key or key[0] in "#$" or key.startswith("chroma:"):
        return f"the metadata key {_short(key)} is reserved by Chroma" if key else "a metadata key is empty"
    return string_fault("a metadata key", key)


def _value_fault(key: str, value: Any) -> str | None:
    if isinstance(value, list):
        if not value:
            return f"metadata {_short(key)} is an empty list"
        if len({type(part) for part in value}) > 1 or not isinstance(value[0], str | int | float):
            return f"metadata {_short(key)} is a list of other than strings, numbers or booleans of one kind"
        return next((fault for part in value if (fault := _scalar_fault(key, part))), None)
    return None if value is None else _scalar_fault(key, value)


def _scalar_fault(key: str, value: Any) -> str | None:
    if isinstance(value, str):
        return string_fault(f"metadata {_short(key)}", value)
    if isinstance(value, float):
        return None if math.isfinite(value) else f"metadata {_short(key)} is {value}, not a finite number"
    if isinstance(value, int):
        return None if value in INT64 else f"metadata {_short(key)} does not fit into 64 bits"
    return f"metadata {_short(key)} is of type {type(value).__name__}, which Chroma does not store"


def _short(key: str) -> str:
    return repr(key if len(key) <= KEY_CHARACTERS else f"{key[:KEY_CHARACTERS]}...")
