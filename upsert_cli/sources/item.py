"""Rows, as a format yields them, the Item or Reject that is made of a row, and the Position between two rows."""

from __future__ import annotations

import json
from array import array
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from upsert_cli.errors import ItemError, Stage
from upsert_cli.redaction import without_secrets
from upsert_cli.sources.json_text import as_json, plain

KEPT_LINE = 10_000  # characters of a row that is not an item, which its reject keeps so that it can be corrected
MAX_ROW = 8 << 20  # bytes; larger rows are rejected, so that memory is bounded

# There is a Position and an Item for every row, and a tuple is made in a third of the time of a frozen dataclass.


class Position(NamedTuple):
    """A point between two rows."""

    source: int
    """Index of the source."""

    row: int
    """Rows of that source before it; of JSONL, lines."""

    offset: int
    """Byte at which the next row begins; 0 in formats that are addressed by rows. Of a collection in a folder, the
    number that its last record has in Chroma's tables."""

    def as_json(self) -> dict[str, int]:
        """Return the position as plain data, for a checkpoint."""
        return self._asdict()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Position:
        """Read what `as_json` wrote."""
        return cls(int(value["source"]), int(value["row"]), int(value["offset"]))


START = Position(0, 0, 0)


class PartialRow(NamedTuple):
    """A row with columns that cannot be read."""

    values: dict[str, Any]
    """Of the other columns."""

    unreadable: tuple[str, ...]
    """The names of the unreadable columns."""

    detail: str
    """Why they cannot be read, in one line."""


class Row(NamedTuple):
    """A row as a format yields it."""

    number: int
    """From 1; of JSONL, the number of the line."""

    value: object
    """An `ItemError` or a `PartialRow` if the row, or a column of it, cannot be read."""

    offset: int
    """Byte at which the next row begins; 0 in formats that are addressed by rows."""

    text: bytes | None = None
    """The row's own text; None if it is not text, says no more than the value, or is too long."""


class StoredParts(NamedTuple):
    """The parts of a stored record that are no fields of its item's payload."""

    document: str | None
    has_own_text: bool = False
    """The metadata has a key `text`; otherwise `payload.text` is the document alone."""

    vector: array[float] | None = None
    """Of 32-bit floats, to be kept; None: the document is to be embedded."""

    hash: str | None = None
    """The record's `upsert_hash`, which tells whether the vector is the model's; None if it has none."""

    fault: str | None = None
    """Why the record cannot be loaded, in one line."""


class Item(NamedTuple):
    """The API's DataItem, with its file and row."""

    object_id: str
    """Not empty, without NUL."""

    payload: dict[str, Any] | None
    item_info: dict[str, Any] | None

    source: str
    """`Source.name`, such as `data/a.jsonl`."""

    row: int
    """From 1; of JSONL, the number of the line."""

    ignored: tuple[str, ...] = ()
    """Fields of a row in item form that are not part of the item, and so are not stored."""

    stored: StoredParts | None = None
    """Of a record of a collection; None for an item of a file."""


class WrittenItem(NamedTuple):
    """An item whose objects are JSON text, without line breaks."""

    object_id: str
    payload: bytes
    item_info: bytes | None

    @classmethod
    def of(cls, object_id: str, payload: dict[str, object], item_info: dict[str, object] | None) -> WrittenItem:
        """Return an item to write.

        Raises:
            ItemError: It would be larger than a row that is read.
        """
        item = cls(object_id, as_json(payload), None if item_info is None else as_json(item_info))
        if len(item.line()) > MAX_ROW:
            raise too_large()
        return item

    def line(self) -> bytes:
        """Return the item as a line of JSONL."""
        info = b"" if self.item_info is None else b',"item_info":' + self.item_info
        return b'{"object_id":%b,"payload":%b%b}\n' % (as_json(self.object_id), self.payload, info)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A row that could not be loaded, and as much of its item as is known."""

    object_id: Any | None
    payload: Any | None
    item_info: Any | None

    detail: str
    """One line of reason."""

    stage: Stage
    source: str
    row: int

    line: str | None = None
    """The text of a row that is not an item, or its JSON; only the beginning if it is long."""

    @classmethod
    def of(cls, item: Item, *, stage: Stage, detail: str) -> Reject:
        """Return the reject for an item that could not be loaded."""
        return cls(
            object_id=item.object_id,
            payload=item.payload,
            item_info=item.item_info,
            detail=without_secrets(detail),  # it may be the words of a server or a library
            stage=stage,
            source=item.source,
            row=item.row,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the reject in the shape of `failed_items`, in values that JSON knows."""
        return {
            "object_id": _plain_or_none(self.object_id),
            "payload": _plain_or_none(self.payload),
            "item_info": _plain_or_none(self.item_info),
            "detail": self.detail,
            "failure_stage": self.stage.value,
            "source": self.source,
            "row": self.row,
        } | ({} if self.line is None else {"line": self.line})


def too_large() -> ItemError:
    """Return the error for a row that is larger than `MAX_ROW`."""
    return ItemError(
        detail=f"the row is larger than {MAX_ROW >> 20} MiB, the limit; divide its text into several items"
    )


def line_of(row: Row) -> str | None:
    r"""Return the text of a row, or its JSON; only the beginning if it is long. Bytes beyond UTF-8 become `\xff`."""
    if row.text is not None:
        return row.text[: 4 * KEPT_LINE].decode("utf-8", "backslashreplace").rstrip("\r\n")[:KEPT_LINE]
    if not isinstance(row.value, dict):
        return None
    readable = dict(row.value)
    for name, one in row.value.items():
        if isinstance(one, bytes):
            with suppress(UnicodeDecodeError):
                readable[name] = one.decode()
    line = _plain_or_none(readable)  # None if nested too deep for any JSON writer
    return None if line is None else json.dumps(line, ensure_ascii=False)[:KEPT_LINE]


def field_at(values: dict[str, Any], path: str, default: object = None) -> object:
    """Return the field that a dotted path leads to, or `default`; a key that contains the dots comes first."""
    if path in values:
        return values[path]
    found: object = values
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return default
        found = found[name]
    return found


def without_field(values: dict[str, Any], path: str) -> dict[str, Any]:
    """Return values without the field that `field_at` finds by this path, and without the objects that this empties."""
    if path in values or "." not in path:
        left = values.copy()
        left.pop(path, None)
        return left
    return _without_nested(values, path.split("."))


def _without_nested(values: dict[str, Any], names: list[str]) -> dict[str, Any]:
    name, *rest = names
    inner: Any = values.get(name)
    if name not in values or (rest and not isinstance(inner, dict)):
        return values
    if rest and ((left := _without_nested(inner, rest)) or left is inner):
        return values | {name: left}
    return {key: value for key, value in values.items() if key != name}


def with_field(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return values with another value in the field that `field_at` finds by this path."""
    return _with_nested(values, [path] if path in values else path.split("."), value)


def _with_nested(values: dict[str, Any], names: list[str], value: object) -> dict[str, Any]:
    name, *rest = names
    return values | {name: _with_nested(values[name], rest, value) if rest else value}


def _plain_or_none(value: object) -> object:
    try:
        return plain(value)
    except ItemError:  # nested too deep for any JSON writer; source and row lead to the item
        return None
