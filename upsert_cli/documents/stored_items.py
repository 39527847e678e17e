"""Record -> item: the item that a stored record stands for, in the same form for loads and for exports.

The payload is the metadata, without this tool's own keys, and `text` is the document. Where the metadata has a key
`text` of its own, that is what the payload holds, and the document is kept next to it, so that nothing is lost.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

from upsert_cli.documents.hashing import HASH_KEY, exact
from upsert_cli.documents.metadata import SCOPE_KEY, shown
from upsert_cli.sources.item import Item, StoredParts

TEXT_FIELD = "text"  # of the payload, where the document stands
_OWN_KEYS = (HASH_KEY, SCOPE_KEY)
_KINDS = frozenset([str, int, float, bool, list])


def item_of_record(
    identifier: str,
    document: str | None,
    metadata: Mapping[str, Any],
    *,
    vector: array[float] | None = None,
    fault: str | None = None,
) -> Item:
    """Return the item of a record, without its source and row.

    Args:
        identifier: The record's id.
        document: The record's text.
        metadata: As the store returns it.
        vector: The record's vector, if it is to be kept.
        fault: Why the record cannot be loaded, if that is known.
    """
    payload = {key: value for key, value in exact(metadata).items() if key not in _OWN_KEYS}
    has_own_text = TEXT_FIELD in payload
    if document is not None and not has_own_text:
        payload = {TEXT_FIELD: document} | payload
    hashed = metadata.get(HASH_KEY)
    parts = StoredParts(
        document,
        has_own_text,
        vector,
        hashed if isinstance(hashed, str) else None,
        fault or _fault(identifier, payload),
    )
    return Item(identifier, payload, None, "", 0, stored=parts)


def _fault(identifier: str, payload: Mapping[str, Any]) -> str | None:
    if "\0" in identifier or not identifier:
        return "its id holds a NUL character" if identifier else "its id is empty"
    return next(
        (
            f"its metadata {shown(key)} is of type {type(value).__name__}, which cannot be copied"
            for key, value in payload.items()
            if type(value) not in _KINDS
        ),
        None,
    )
