"""What a row holds: an Item, or a Reject where it holds none; and the Position between two rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from upsert_cli.errors import ItemError, Stage
from upsert_cli.redaction import without_secrets
from upsert_cli.sources.json_text import plain

# There is a Position and an Item for every row, and a tuple is made in a third of the time of a frozen dataclass.


class Position(NamedTuple):
    """A place between two rows."""

    source: int
    """Index of the source."""

    row: int
    """Rows of that source that are behind us; of JSONL, lines."""

    offset: int
    """Byte at which the next line begins; 0 where the format is addressed by rows."""

    def as_json(self) -> dict[str, int]:
        """Returns the position as plain data, for a checkpoint."""
        return self._asdict()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Position:
        """Reads what `as_json` wrote."""
        return cls(int(value["source"]), int(value["row"]), int(value["offset"]))


START = Position(0, 0, 0)


class PartialRow(NamedTuple):
    """A row of which some columns cannot be read."""

    values: dict[str, Any]
    """Of the other columns."""

    unreadable: tuple[str, ...]
    """The names of these columns."""

    detail: str
    """Why they cannot be read, in one line."""


class Row(NamedTuple):
    """What a reader yields."""

    number: int
    """From 1; of JSONL, the number of the line."""

    value: object
    """An `ItemError` or a `PartialRow` if the row, or a column of it, cannot be read."""

    offset: int
    """Byte at which the next row begins; 0 where the format is addressed by rows."""

    text: bytes | None = None
    """The row as it stands in its file; None if that is no text, says no more than the value, or is too long."""


class Item(NamedTuple):
    """What a row holds: the API's DataItem, and where it stood."""

    object_id: str
    """Not empty, without NUL."""

    payload: dict[str, Any] | None
    item_info: dict[str, Any] | None

    source: str
    """`Source.name`, such as `data/a.jsonl`."""

    row: int
    """From 1; of JSONL, the number of the line."""

    ignored: tuple[str, ...] = ()
    """Fields of the row that are no part of an item in item form, and so are not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A row that could not be loaded, with what is known of its item."""

    object_id: Any | None
    payload: Any | None
    item_info: Any | None

    detail: str
    """One line of reason."""

    stage: Stage
    source: str
    row: int

    line: str | None = None
    """The row as it stands in its file, or as JSON, if it is no item; its beginning if it is long."""

    @classmethod
    def of(cls, item: Item, *, stage: Stage, detail: str) -> Reject:
        """Returns the reject that stands for an item from now on."""
        return cls(
            object_id=item.object_id,
            payload=item.payload,
            item_info=item.item_info,
            detail=without_secrets(detail),  # a server or a library may have said it
            stage=stage,
            source=item.source,
            row=item.row,
        )

    def as_json(self) -> dict[str, Any]:
        """Returns the reject in the shape of `failed_items`, in values that JSON knows."""
        return {
            "object_id": _plain_or_none(self.object_id),
            "payload": _plain_or_none(self.payload),
            "item_info": _plain_or_none(self.item_info),
            "detail": self.detail,
            "failure_stage": self.stage.value,
            "source": self.source,
            "row": self.row,
        } | ({} if self.line is None else {"line": self.line})


def field_at(values: dict[str, Any], path: str, default: object = None) -> object:
    """Returns the field that a dotted path leads to, or `default`; a key that has the dots in it comes first."""
    if path in values:
        return values[path]
    found: object = values
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return default
        found = found[name]
    return found


def without_field(values: dict[str, Any], path: str) -> dict[str, Any]:
    """Returns values without the field that `field_at` finds by this path, if there is one."""
    name, _, rest = path.partition(".")
    if path in values or not rest:
        return {key: value for key, value in values.items() if key != path}
    inner = values.get(name)
    return values | {name: without_field(inner, rest)} if isinstance(inner, dict) else values


def with_field(values: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """Return values with another value in the field that `field_at` finds by this path."""
    name, _, rest = path.partition(".")
    if path in values or not rest:
        return values | {path: value}
    return values | {name: with_field(values[name], rest, value)}


def _plain_or_none(value: object) -> object:
    try:
        return plain(value)
    except ItemError:  # nested too deep for any JSON writer; source and row lead to the item
        return None
