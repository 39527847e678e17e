"""The rows that a format yields, the items or rejects that they become, and positions between rows."""

from __future__ import annotations

import json
from array import array
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from upsert_cli.errors import ItemError, Stage
from upsert_cli.redaction import without_secrets
from upsert_cli.sources.json_text import as_json
from upsert_cli.sources.values import plain

KEPT_LINE = 10_000  # characters of a row that is not an item; its reject keeps them so that it can be corrected
MAX_ROW = 8 << 20  # bytes; larger rows are rejected, so that memory is bounded

DEFAULT_ID_FIELD = "object_id"
ITEM_FIELDS = ("object_id", "payload", "item_info")
REJECT_FIELDS = frozenset(["detail", "failure_stage", "source", "row"])  # the fields of every reject's record

# Every row makes a Position and an Item, and making a tuple takes a third of the time of a frozen dataclass.


class Position(NamedTuple):
    """A point between two rows."""

    source: int
    """Index of the source."""

    row: int
    """Rows of the source before this point; for JSONL, lines."""

    offset: int
    """Byte at which the next row begins; 0 in formats that are addressed by rows. For a collection in a folder, the
    number of the last record in Chroma's tables."""

    def as_json(self) -> dict[str, int]:
        """Return the position as plain data, for a checkpoint."""
        return self._asdict()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Position:
        """Return the position that `as_json` wrote."""
        return cls(int(value["source"]), int(value["row"]), int(value["offset"]))


START = Position(0, 0, 0)


class PartialRow(NamedTuple):
    """A row with columns that cannot be read."""

    values: dict[str, Any]
    """The values of the other columns."""

    unreadable: tuple[str, ...]
    """The names of the unreadable columns."""

    detail: str
    """The reason in one line."""


class Row(NamedTuple):
    """A row as a format yields it."""

    number: int
    """From 1; for JSONL, the number of the line."""

    value: object
    """Usually an object; an `ItemError` if the row cannot be read, a `PartialRow` if some of its columns cannot."""

    offset: int
    """Byte at which the next row begins; 0 in formats that are addressed by rows."""

    text: bytes | None = None
    """The text of the row in the file; None if it is too long, or is not needed to keep the row."""


class StoredParts(NamedTuple):
    """The parts of a stored record that its item holds apart from the payload."""

    document: str | None
    has_own_text: bool = False
    """The metadata has a key `text`; otherwise `payload.text` is the document."""

    vector: array[float] | None = None
    """The vector to keep, of 32-bit floats; None: the document is to be embedded."""

    hash: str | None = None
    """The record's `upsert_hash`, if any; it shows whether the model made the vector."""

    fault: str | None = None
    """The reason why the record cannot be loaded, in one line."""


class Item(NamedTuple):
    """The API's DataItem, with its file and row."""

    object_id: str
    """Not empty, without NUL."""

    payload: dict[str, Any] | None
    item_info: dict[str, Any] | None

    source: str
    """`Source.name`, such as `data/a.jsonl`."""

    row: int
    """From 1; for JSONL, the number of the line."""

    ignored: tuple[str, ...] = ()
    """Fields of a row in item form that belong to no part of the item, and so are not stored."""

    stored: StoredParts | None = None
    """The other parts of the record that the item was; None for an item of a file."""


class WrittenItem(NamedTuple):
    """An item for a file, with its objects as JSON text in one line."""

    object_id: str
    payload: bytes
    item_info: bytes | None

    @classmethod
    def of(cls, object_id: str, payload: dict[str, object], item_info: dict[str, object] | None) -> WrittenItem:
        """Return an item to write.

        Raises:
            ItemError: The item is larger than a row may be when it is read.
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
    """A row that could not be loaded, with the known parts of its item."""

    object_id: Any | None
    payload: Any | None
    item_info: Any | None

    detail: str
    """The reason in one line."""

    stage: Stage
    source: str
    row: int

    line: str | None = None
    """The text of a row that is not an item, or its values as JSON; only the beginning if it is long."""

    @classmethod
    def of(cls, item: Item, *, stage: Stage, detail: str) -> Reject:
        """Return the reject for an item that could not be loaded."""
        return cls(
            object_id=item.object_id,
            payload=item.payload,
            item_info=item.item_info,
            detail=without_secrets(detail),  # possibly the words of a server or a library
            stage=stage,
            source=item.source,
            row=item.row,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the reject in the form of `failed_items`, as plain data."""
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
    r"""Return the text of a row, or its values as JSON; only the beginning of a long row.

    Bytes that are not UTF-8 become `\xff` in the text, and base64 in JSON. None if the row has neither.
    """
    if row.text is not None:
        return row.text[: 4 * KEPT_LINE].decode("utf-8", "backslashreplace").rstrip("\r\n")[:KEPT_LINE]
    if not isinstance(row.value, dict):
        return None
    readable = dict(row.value)
    for name, value in row.value.items():
        if isinstance(value, bytes):
            with suppress(UnicodeDecodeError):
                readable[name] = value.decode()
    line = _plain_or_none(readable)
    return None if line is None else json.dumps(line, ensure_ascii=False)[:KEPT_LINE]


def _plain_or_none(value: object) -> object:
    """Return a value in types that JSON has, or None if it is nested too deep."""
    try:
        return plain(value)
    except ItemError:  # source and row still lead to the item
        return None
