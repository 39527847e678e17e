"""A file -> Item, with file and row, from any position on.

A row that is no item becomes a Reject and never costs its neighbours; only a file that cannot be read any further ends
the stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from upsert_cli.errors import ItemError, SourceUnreadable, Stage
from upsert_cli.stream.formats import FORMATS, why_unreadable
from upsert_cli.stream.json_text import kind_of, plain
from upsert_cli.stream.sources import Source

ITEM_FIELDS = ("object_id", "payload", "item_info")
SHOWN_FIELDS = 10  # names of fields in a message; enough to recognise the file

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
    """The row as it stands in its file, where it could not be parsed; its beginning where it is long."""

    @classmethod
    def of(cls, item: Item, *, stage: Stage, detail: str) -> Reject:
        """Returns the reject that stands for an item from now on."""
        return cls(
            object_id=item.object_id,
            payload=item.payload,
            item_info=item.item_info,
            detail=detail,
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


def read_items(
    sources: Sequence[Source], *, start: Position, id_field: str | None
) -> Iterator[tuple[Item | Reject, Position]]:
    """Yields every row from `start` on, with the position behind it; reads nothing before `start`.

    Args:
        sources: Read one after the other.
        start: `START`, or a position that this function yielded for the same sources.
        id_field: Dotted path of the field that holds the id, in files that are not in item form.

    Raises:
        SourceUnreadable: A file is gone, broke off, or cannot be read any further.
    """
    for index in range(start.source, len(sources)):
        source = sources[index]
        _, row, offset = start if index == start.source else (index, 0, 0)
        fields = ITEM_FIELDS if id_field is None else None
        try:
            rows = FORMATS[source.format].read(source.path, row=row, offset=offset, fields=fields)
            for row, value, offset in rows:
                yield _item(value, id_field, source.name, row), Position(index, row, offset)
        except OSError as error:
            raise SourceUnreadable(name=source.name, reason=why_unreadable(error), row=row) from error


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


def _item(value: object, id_field: str | None, source: str, row: int) -> Item | Reject:
    """Makes the item of a row, or says what is wrong with it."""
    if type(value) is not dict:
        return _not_a_record(value, source, row)
    info = value.get("item_info")
    if id_field is None:
        object_id, payload = value.get("object_id"), value.get("payload")
    else:
        object_id, payload = _mapped_id(value, id_field), _mapped_payload(value, id_field)
    if (
        type(object_id) is str
        and object_id
        and "\0" not in object_id
        and _is_object_or_none(payload)
        and _is_object_or_none(info)
    ):
        return Item(object_id, payload, info, source, row)
    return Reject(
        object_id=_readable(object_id),
        payload=_readable(payload) if payload is not None else _other_fields(value, ITEM_FIELDS) or None,
        item_info=_readable(info),
        detail=_what_is_wrong(value, object_id, payload, id_field),
        stage=Stage.READING,
        source=source,
        row=row,
    )


def _mapped_id(record: dict[str, Any], id_field: str) -> object:
    found = field_at(record, id_field)
    return str(found) if type(found) is int else found


def _mapped_payload(record: dict[str, Any], id_field: str) -> dict[str, Any]:
    payload = record.get("payload")
    return payload if type(payload) is dict else _other_fields(record, (id_field, "item_info"))


def _other_fields(record: dict[str, Any], without: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in without}


# -- what is wrong ------------------------------------------------------------------------------------------------


def _not_a_record(value: object, source: str, row: int) -> Reject:
    if not isinstance(value, ItemError):
        hint = "; `jq -c '.[]'` writes the elements of an array one a line" if isinstance(value, list) else ""
        value = ItemError(stage=Stage.READING, detail=f"an object was expected, not {kind_of(value)}{hint}")
    return Reject(
        object_id=None,
        payload=None,
        item_info=None,
        detail=value.detail,
        stage=value.stage,
        source=source,
        row=row,
        line=value.line,
    )


def _readable(value: object) -> object:
    return None if isinstance(value, ItemError) else value


def _what_is_wrong(record: dict[str, Any], object_id: object, payload: object, id_field: str | None) -> str:
    name = id_field or "object_id"
    if object_id is None and field_at(record, name, record) is None:
        return f"{name} is null, not text"
    if object_id is None:
        hint = "" if id_field else "; --id-field takes the id from another field"
        return f"{name} is missing (there: {_names(record)}){hint}"
    if not isinstance(object_id, str):
        return f"{name} is {kind_of(object_id)}, not text"
    if not object_id or "\0" in object_id:
        return f"{name} holds a NUL character" if object_id else f"{name} is empty"
    name, value = ("payload", payload) if not _is_object_or_none(payload) else ("item_info", record.get("item_info"))
    return f"{name}: {value}" if isinstance(value, ItemError) else f"{name} is {kind_of(value)}, not an object"


def _is_object_or_none(value: object) -> bool:
    return value is None or type(value) is dict


def _names(record: dict[str, Any]) -> str:
    names = list(record)[:SHOWN_FIELDS]
    return ", ".join(names) + (", ..." if len(record) > SHOWN_FIELDS else "") if names else "nothing"


def _plain_or_none(value: object) -> object:
    try:
        return plain(value)
    except ItemError:  # nested too deep for any JSON writer; source and row lead to the item
        return None
