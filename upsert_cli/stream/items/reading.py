"""A file -> Item, with file and row, from any position on.

A row that is no item becomes a Reject and never costs its neighbours; only a file that cannot be read any further ends
the stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

from upsert_cli.errors import ItemError, Stage
from upsert_cli.stream.items.item import START, Item, Position, Reject, field_at
from upsert_cli.stream.items.json_text import as_text, as_utf8, kind_of
from upsert_cli.stream.sources.formats import FORMATS, unreadable
from upsert_cli.stream.sources.source import Source

__all__ = ["START", "IdFrom", "Item", "ItemMaker", "Position", "Reject", "item_maker", "read_items"]

IdFrom: TypeAlias = Literal["row", "hash"]

DEFAULT_ID_FIELD = "object_id"
ITEM_FIELDS = ("object_id", "payload", "item_info")
ID_BYTES = 16  # of a hash that is an id; makes equal ids of different rows unheard of
SHOWN_FIELDS = 10  # names of fields in a message; enough to recognise the file


def read_items(
    sources: Sequence[Source], *, start: Position, id_field: str | None, id_from: IdFrom | None = None
) -> Iterator[tuple[Item | Reject, Position]]:
    """Yields every row from `start` on, with the position behind it; reads nothing before `start`.

    Args:
        sources: Read one after the other.
        start: `START`, or a position that this function yielded for the same sources.
        id_field: Dotted path of the field that holds the id, in files that are not in item form.
        id_from: What the id is made of, in files that have none.

    Raises:
        SourceUnreadable: A file is gone, broke off, or cannot be read any further.
    """
    for index in range(start.source, len(sources)):
        source = sources[index]
        _, row, begin = start if index == start.source else (index, 0, 0)
        make = item_maker(source, id_field=id_field, id_from=id_from)
        fields = ITEM_FIELDS if make is _item else None
        name = source.name
        try:
            rows = FORMATS[source.format].read(source.path, row=row, offset=begin, fields=fields)
            for row, value, offset in rows:
                yield make(value, name, row), Position(index, row, offset)
        except OSError as error:
            raise unreadable(name, error, row=row) from error


ItemMaker: TypeAlias = Callable[[object, str, int], Item | Reject]
"""Makes the item of a row, or says what is wrong with it: value, `Source.name`, row."""


def item_maker(source: Source, *, id_field: str | None, id_from: IdFrom | None) -> ItemMaker:
    """Returns what makes the items of a source; see `read_items`."""
    if id_field is None and id_from is None and not FORMATS[source.format].is_table:
        return _item
    return partial(_mapped_item, id_field=id_field or DEFAULT_ID_FIELD, id_from=id_from)


def _item(value: object, source: str, row: int) -> Item | Reject:
    if type(value) is not dict:
        return _not_a_record(value, source, row)
    get = value.get
    return _checked(value, (get("object_id"), get("payload"), get("item_info")), source, row)


def _mapped_item(value: object, source: str, row: int, *, id_field: str, id_from: IdFrom | None) -> Item | Reject:
    if type(value) is not dict:
        return _not_a_record(value, source, row)
    payload, info = value.get("payload"), value.get("item_info")
    object_id = field_at(value, id_field) if id_from is None else None
    if object_id is None and type(payload) is dict and type(value.get("object_id")) in (str, bytes):
        object_id = value["object_id"]  # it is in item form, such as a mended reject
    elif type(payload) is not dict and not isinstance(payload, ItemError):
        payload = _other_fields(value, ("item_info", id_field) if id_from is None else ("item_info",))
    try:
        if object_id is None and id_from is not None:
            object_id = _row_id(source, row) if id_from == "row" else _content_id(payload, info)
    except ItemError as error:
        return _reject(value, (None, payload, info), error.detail, source, row)
    if type(object_id) is int:
        object_id = str(object_id)
    return _checked(value, (object_id, payload, info), source, row, id_field=id_field)


def _row_id(source: str, row: int) -> str:
    return f"{PurePath(source).name}:{row}"


def _content_id(payload: object, info: object) -> str:
    return hashlib.blake2b(as_text([payload, info]).encode(), digest_size=ID_BYTES).hexdigest()


def _checked(
    value: dict[str, Any], parts: tuple[Any, Any, Any], source: str, row: int, *, id_field: str | None = None
) -> Item | Reject:
    """Makes an item of id, payload and info if they are such."""
    object_id, payload, info = parts
    if (
        type(object_id) is str
        and object_id
        and "\0" not in object_id
        and (payload is None or type(payload) is dict)
        and (info is None or type(info) is dict)
    ):
        return Item(object_id, payload, info, source, row)
    if type(object_id) is bytes:
        try:
            text = as_utf8(object_id, id_field or DEFAULT_ID_FIELD)
        except ItemError as error:
            return _reject(value, parts, error.detail, source, row)
        return _checked(value, (text, payload, info), source, row, id_field=id_field)
    return _reject(value, parts, _what_is_wrong(value, object_id, payload, id_field), source, row)


def _reject(value: dict[str, Any], parts: tuple[Any, Any, Any], detail: str, source: str, row: int) -> Reject:
    object_id, payload, info = map(_readable, parts)
    return Reject(
        object_id=object_id,
        payload=payload if payload is not None else _other_fields(value, ITEM_FIELDS) or None,
        item_info=info,
        detail=detail,
        stage=Stage.READING,
        source=source,
        row=row,
    )


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
    name = id_field or DEFAULT_ID_FIELD
    if object_id is None and field_at(record, name, record) is None:
        return f"{name} is null, not text"
    if object_id is None:
        hint = "; --id-field takes the id from another field" if name == DEFAULT_ID_FIELD else ""
        return f"{name} is missing (there: {_names(record)}){hint}"
    if not isinstance(object_id, str):
        return _not_an_id(name, object_id, may_be_integer=id_field is not None)
    if not object_id or "\0" in object_id:
        return f"{name} holds a NUL character" if object_id else f"{name} is empty"
    name, value = ("payload", payload) if not _is_object_or_none(payload) else ("item_info", record.get("item_info"))
    return f"{name}: {value}" if isinstance(value, ItemError) else f"{name} is {kind_of(value)}, not an object"


def _not_an_id(name: str, value: object, *, may_be_integer: bool) -> str:
    wanted = "integers or text" if may_be_integer else "text"
    match value:
        case bool() | list() | dict():
            return f"{name} is {kind_of(value)}, not text"
        case int():
            return f"{name} is a number, not text; `--id-field {name}` takes integers as ids too"
        case float():  # such as a column of integers in which pandas found a gap
            return f"{name} {as_text(value)} is a float; the column has to be written as {wanted}"
    return f"{name} {as_text(value)} is {kind_of(value)}; the column has to be written as {wanted}"


def _is_object_or_none(value: object) -> bool:
    return value is None or type(value) is dict


def _names(record: dict[str, Any]) -> str:
    names = list(record)[:SHOWN_FIELDS]
    return ", ".join(names) + (", ..." if len(record) > SHOWN_FIELDS else "") if names else "nothing"
