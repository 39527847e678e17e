"""What a place takes at most: asked for and checked before anything is sent, so that a row is named, not a request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KEY_CHARACTERS = 60  # characters of a key in a reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What a place takes at most; None: no limit of its own."""

    rows: int | None = None
    """Records in one write, and in one answer."""

    id_bytes: int | None = None
    text_bytes: int | None = None
    keys: int | None = None
    """Of a record's metadata."""

    key_bytes: int | None = None
    value_bytes: int | None = None

    def most_rows(self, rows: int) -> int:
        """Returns `rows`, or what is allowed of it."""
        return rows if self.rows is None else min(rows, self.rows)

    def fault(self, identifier: str, text: str, metadata: Mapping[str, Any]) -> str | None:
        """Returns by what a row would be refused, in one line; None if it is good."""
        values = {key: value for key, value in metadata.items() if value is not None}
        found = [
            _over("the id has", _bytes(identifier), "bytes", self.id_bytes),
            _over("the text has", _bytes(text), "bytes", self.text_bytes),
            _over("the metadata has", len(values), "keys", self.keys),
        ]
        if self.key_bytes is not None:
            found += [
                _over(f"the metadata key {_short(key)} has", _bytes(key), "bytes", self.key_bytes) for key in values
            ]
        if self.value_bytes is not None:
            found += [
                _over(f"metadata {_short(key)} has", _bytes(value), "bytes", self.value_bytes)
                for key, value in values.items()
                if isinstance(value, str)
            ]
        return next((fault for fault in found if fault is not None), None)


NO_QUOTAS = Quotas()

# Of Chroma Cloud, as its documentation has them (November 2026): https://docs.trychroma.com/cloud/quotas-limits
CLOUD_QUOTAS = Quotas(rows=300, id_bytes=128, text_bytes=16_384, keys=32, key_bytes=36, value_bytes=4_096)


def _over(what: str, found: int, unit: str, limit: int | None) -> str | None:
    if limit is None or found <= limit:
        return None
    return f"{what} {found:,} {unit}, and the cloud takes {limit:,}"


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _short(key: str) -> str:
    return repr(key if len(key) <= KEY_CHARACTERS else f"{key[:KEY_CHARACTERS]}...")
