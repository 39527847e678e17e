"""The rejects of a task -> those that its record holds: the first ones, whole where there is room for them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from upsert_cli.journal.valid_text import valid_json

FAILED_ITEMS = 20  # rejects in a task's record; all of them are in its rejects file
FAILED_ITEMS_CHARS = 16_384  # characters of JSON for all rejects in a record, so that a segment stays small


def bounded(items: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Yields the first rejects with valid text; what there is no room for without payload, and marked as `cut`."""
    room = FAILED_ITEMS_CHARS
    for item in list(items)[:FAILED_ITEMS]:
        text = valid_json(item)
        if (room := room - len(text)) >= 0:
            yield json.loads(text)
        else:
            yield json.loads(valid_json(_cut(item)))


def _cut(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _short(value) for key, value in item.items()} | {"payload": None, "item_info": None, "cut": True}


def _short(value: object) -> object:
    longest = FAILED_ITEMS_CHARS // FAILED_ITEMS // 4  # characters; few enough that all items fit when all are cut
    if isinstance(value, str):
        return value[:longest]
    return value if len(valid_json(value)) <= longest else None
