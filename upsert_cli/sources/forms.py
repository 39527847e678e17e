"""The value of a row -> Item: rows in item form as they are, foreign rows by the mapping, rejects as they were meant.

A row is in item form if it has an `object_id`, and `payload` and `item_info`, where present, are objects. Every other
row is foreign: all its columns make up the payload, whatever their names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal, TypeAlias

from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.formats import FORMATS
from upsert_cli.sources.item import Item, PartialRow, Reject, field_at
from upsert_cli.sources.json_text import Pairs, as_text, as_utf8, kind_of, parse, plain
from upsert_cli.sources.source import Source
from upsert_cli.sources.suffixes import format_of

IdFrom: TypeAlias = Literal["row", "hash"]
Parts: TypeAlias = tuple[Any, Any, Any]
"""What may be `object_id`, `payload` and `item_info` of an item."""

DEFAULT_ID_FIELD = "object_id"
ITEM_FIELDS = ("object_id", "payload", "item_info")
REJECT_FIELDS = ("detail", "failure_stage", "source", "row")  # by which the record of a reject is recognized
ID_BYTES = 16  # of a hash that is an id; makes equal ids of different rows unheard of
SHOWN_FIELDS = 10  # names of fields in a message; enough to recognise the file
KEPT_LINE = 10_000  # characters of a row that is no item, which its reject keeps so that it can be corrected

ItemMaker: TypeAlias = Callable[[object, int, bytes | None], Item | Reject]
"""Make the item of a row, or say what is wrong with it; takes value, number and text of a `Row`."""


def item_maker(source: Source, *, id_field: str | None, id_from: IdFrom | None) -> ItemMaker:
    """Return the function that makes the items of a source; see `Rows`."""
    form = FORMATS[source.format]
    if id_field is None and id_from is None and not form.is_table:
        return _Items(source.name, has_json_texts=form.has_json_texts).make
    return _MappedItems(
        source.name, has_json_texts=form.has_json_texts, id_field=id_field or DEFAULT_ID_FIELD, id_from=id_from
    ).make


@dataclass(frozen=True, slots=True)
class _Items:
    """Makes items of rows in item form."""

    source: str
    has_json_texts: bool

    def make(self, value: object, row: int, text: bytes | None) -> Item | Reject:
        """Make the item of a row."""
        if type(value) is not dict:
            return self._not_an_object(value, row, text)
        if "failure_stage" in value and value.keys() >= set(REJECT_FIELDS):
            return self._corrected(value, row, text)
        return self._checked(value, self._parts(value), row, text)

    def _parts(self, value: dict[str, Any]) -> Parts:
        object_id, payload, info = map(value.get, ITEM_FIELDS)
        return (object_id, _parsed(payload), _parsed(info)) if self.has_json_texts else (object_id, payload, info)

    def _corrected(self, record: dict[str, Any], row: int, text: bytes | None) -> Item | Reject:
        """Make the item that a reject stands for: of its fields if they make one, else of the row that it keeps."""
        parts = (record.get("object_id"), record.get("payload"), record.get("item_info"))
        line = record.get("line")
        is_item = _is_id(parts[0]) and all(part is None or type(part) is dict for part in parts[1:])
        if type(line) is not str or (is_item and parts[1] is not None):
            return self._checked(record, parts, row, text)
        kept = line.encode("utf-8", "surrogatepass")
        try:
            value = parse(kept)
        except ItemError as error:
            value = error
            if len(line) >= KEPT_LINE:
                whole = f"{record['source']}, row {record['row']}"
                value = ItemError(stage=error.stage, detail=f"its `line` was cut short; correct it in {whole}")
        return self._for_kept(str(record["source"])).make(value, row, kept)

    def _for_kept(self, origin: str) -> _Items:
        """Return the maker for a row that a reject kept: it is read as it would be in the file that it came from."""
        form = FORMATS.get(format_of(PurePath(origin)) or "")
        if form is not None and form.is_table:
            return _MappedItems(self.source, has_json_texts=True, id_field=DEFAULT_ID_FIELD, id_from=None)
        return replace(self, has_json_texts=form is not None and form.has_json_texts)

    def _checked(
        self, value: dict[str, Any], parts: Parts, row: int, text: bytes | None, *, mapped_by: str | None = None
    ) -> Item | Reject:
        """Make an item of its parts if they are such; of a foreign row, say by which field its id was looked for."""
        object_id, payload, info = parts
        if type(object_id) is bytes:
            try:
                object_id = as_utf8(object_id, mapped_by or DEFAULT_ID_FIELD)
            except ItemError as error:
                return self._reject(value, parts, error.detail, row, text)
        if (
            type(object_id) is str
            and object_id
            and "\0" not in object_id
            and (payload is None or type(payload) is dict)
            and (info is None or type(info) is dict)
        ):
            if mapped_by is None and len(value) > sum(map(value.__contains__, ITEM_FIELDS)):
                return Item(object_id, payload, info, self.source, row, _ignored(value))
            return Item(object_id, payload, info, self.source, row)
        return self._reject(value, parts, _what_is_wrong(value, (object_id, payload, info), mapped_by), row, text)

    def _reject(self, value: dict[str, Any], parts: Parts, detail: str, row: int, text: bytes | None) -> Reject:
        # What is no JSON stays as it is: the record of a reject must not look like an item that was corrected.
        object_id, payload, info = (
            value[name] if isinstance(part, ItemError) else part for name, part in zip(ITEM_FIELDS, parts, strict=True)
        )
        return Reject(
            object_id=object_id,
            payload=payload if payload is not None else _other_fields(value, ITEM_FIELDS) or None,
            item_info=info,
            detail=detail,
            stage=Stage.READING,
            source=self.source,
            row=row,
            line=_line_of(value, text),
        )

    def _unreadable_columns(self, value: PartialRow, row: int) -> Item | Reject:
        """Make the item of a row whose unreadable columns are no part of it; reject any other row."""
        parts = None if set(ITEM_FIELDS).intersection(value.unreadable) else self._item_form(value.values)
        if parts is not None:
            made = self._checked(value.values, parts, row, None)
            return made._replace(ignored=(*made.ignored, *value.unreadable)) if isinstance(made, Item) else made
        return self._reject(value.values, (None, None, None), value.detail, row, None)

    def _item_form(self, value: dict[str, Any]) -> Parts | None:
        """Return the parts of a row in item form, or None if it is foreign; without a mapping no row is."""
        return self._parts(value)

    def _not_an_object(self, value: object, row: int, text: bytes | None) -> Item | Reject:
        if isinstance(value, PartialRow):
            return self._unreadable_columns(value, row)
        if not isinstance(value, ItemError):
            hint = "; `jq -c '.[]'` writes the elements of an array one a line" if isinstance(value, list) else ""
            value = ItemError(stage=Stage.READING, detail=f"an object was expected, not {kind_of(value)}{hint}")
        return Reject(
            object_id=None,
            payload=None,
            item_info=None,
            detail=value.detail,
            stage=value.stage,
            source=self.source,
            row=row,
            line=None if text is None else _shortened(text),
        )


@dataclass(frozen=True, slots=True)
class _MappedItems(_Items):
    """Makes items of rows in any form."""

    id_field: str
    id_from: IdFrom | None

    def make(self, value: object, row: int, text: bytes | None) -> Item | Reject:
        """Make the item of a row."""
        if type(value) is not dict:
            return self._not_an_object(value, row, text)
        if "failure_stage" in value and value.keys() >= set(REJECT_FIELDS):
            return self._corrected(value, row, text)
        parts = self._item_form(value)
        if parts is not None:
            return self._checked(value, parts, row, text)
        info = self._object_in(value.get("item_info"))
        info = info if type(info) is dict else None
        taken = [] if info is None else ["item_info"]
        object_id = field_at(value, self.id_field) if self.id_from is None else None
        payload = _other_fields(value, taken if self.id_from is not None else [*taken, self.id_field])
        try:
            if self.id_from is not None:
                object_id = _row_id(self.source, row) if self.id_from == "row" else _content_id(payload, info)
        except ItemError as error:
            return self._reject(value, (None, payload, info), error.detail, row, text)
        if type(object_id) is int:
            object_id = str(object_id)
        return self._checked(value, (object_id, payload, info), row, text, mapped_by=self.id_field)

    def _item_form(self, value: dict[str, Any]) -> Parts | None:
        """Return the parts of a row in item form; one without a payload has no other columns either."""
        object_id = value.get("object_id")
        if type(object_id) is int and self.id_field == DEFAULT_ID_FIELD and self.id_from is None:
            object_id = str(object_id)
        if type(object_id) not in (str, bytes) or not object_id:
            return None
        is_alone = value.keys() <= set(ITEM_FIELDS)
        payload, info = (self._object_in(value.get(name), is_meant=is_alone) for name in ITEM_FIELDS[1:])
        if isinstance(payload, ItemError) or isinstance(info, ItemError):
            return object_id, payload, info
        if (info is None or type(info) is dict) and (type(payload) is dict or (payload is None and is_alone)):
            return object_id, payload, info
        return None

    def _object_in(self, value: object, *, is_meant: bool = False) -> object:
        """Return the object that the text of a column holds as JSON, or the value as it is.

        Args:
            value: Of a column that may be part of an item.
            is_meant: Whether a text in braces can be nothing but JSON, so that it is an error if it is not.
        """
        if not self.has_json_texts or not isinstance(value, str | bytes):
            return value
        text = value.encode() if isinstance(value, str) else value
        if not text.strip():
            return None if is_meant else value
        if not text.lstrip().startswith(b"{"):
            return value
        found = _parsed(text)
        return value if isinstance(found, ItemError) and not is_meant else found

    def _for_kept(self, origin: str) -> _Items:
        form = FORMATS.get(format_of(PurePath(origin)) or "")
        return replace(self, has_json_texts=form is not None and form.has_json_texts)


def _parsed(value: object) -> object:
    """Return what a text holds as JSON, or an error; other values as they are."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return parse(value.encode() if isinstance(value, str) else value)
    except ItemError as error:
        return error


def _row_id(source: str, row: int) -> str:
    return f"{PurePath(source).name}:{row}"


def _content_id(payload: object, info: object) -> str:
    return hashlib.blake2b(as_text([payload, info]).encode(), digest_size=ID_BYTES).hexdigest()


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _ignored(value: dict[str, Any]) -> tuple[str, ...]:
    """Return the fields of a row in item form that are no part of it; those of a reject are about the item."""
    names = tuple(name for name in value if name not in ITEM_FIELDS)
    return () if "failure_stage" in names and set(REJECT_FIELDS) <= set(names) else names


def _other_fields(record: dict[str, Any], without: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in without}


# -- what is wrong ------------------------------------------------------------------------------------------------


def _line_of(value: dict[str, Any], text: bytes | None) -> str | None:
    """Return a row as it stands in its file, or as JSON; its beginning if it is long."""
    if text is not None:
        return _shortened(text)
    readable = dict(value)
    for name, one in value.items():
        if isinstance(one, bytes):
            with suppress(UnicodeDecodeError):
                readable[name] = one.decode()
    try:
        return json.dumps(plain(readable), ensure_ascii=False)[:KEPT_LINE]
    except ItemError:  # nested too deep for any JSON writer; source and row lead to it
        return None


def _shortened(text: bytes) -> str:
    r"""Return a row, or its beginning, as text; bytes that are not UTF-8 become `\xff`."""
    return text[: 4 * KEPT_LINE].decode("utf-8", "backslashreplace").rstrip("\r\n")[:KEPT_LINE]


def _what_is_wrong(record: dict[str, Any], parts: Parts, mapped_by: str | None) -> str:
    object_id, payload, info = parts
    name = mapped_by or DEFAULT_ID_FIELD
    if object_id is None and field_at(record, name, record) is None:
        return f"{name} is null, not text"
    if object_id is None:
        hint = "; --id-field takes the id from another field" if name == DEFAULT_ID_FIELD else ""
        return f"{name} is missing (there: {_names(record)}){hint}"
    if not isinstance(object_id, str):
        return _not_an_id(name, object_id, may_be_integer=mapped_by is not None)
    if not object_id or "\0" in object_id:
        return f"{name} holds a NUL character" if object_id else f"{name} is empty"
    return _not_an_object(payload, info)


def _not_an_object(payload: object, info: object) -> str:
    name, value = ("item_info", info) if payload is None or type(payload) is dict else ("payload", payload)
    match value:
        case ItemError():
            return f"{name}: {value}"
        case Pairs():
            return f"{name}: a map that repeats a key is not an object; make each key unique"
    return f"{name} is {kind_of(value)}, not an object"


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


def _names(record: dict[str, Any]) -> str:
    names = list(record)[:SHOWN_FIELDS]
    return ", ".join(names) + (", ..." if len(record) > SHOWN_FIELDS else "") if names else "nothing"
