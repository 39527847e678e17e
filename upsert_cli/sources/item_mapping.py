"""Rows as items: rows in item form as they are, other rows by the mapping, and rejects that were corrected.

A row is in item form if it has an `object_id`, and its `payload` and `item_info`, where present, are objects. Every
other row is foreign: all its columns make up the payload, even one called `payload`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePath
from typing import Any, Literal, TypeAlias, cast

from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.field_paths import field_at
from upsert_cli.sources.formats import COLLECTION_FORMAT, format_name_of, has_json_texts, is_table
from upsert_cli.sources.item import KEPT_LINE, Item, PartialRow, Reject, Row, line_of
from upsert_cli.sources.json_text import Pairs, as_text, as_utf8, kind_of, parse
from upsert_cli.sources.source import Source

IdFrom: TypeAlias = Literal["row", "hash"]
_Fields: TypeAlias = tuple[Any, Any, Any]
"""Values that may be the `object_id`, `payload` and `item_info` of an item."""

_NO_FIELDS: _Fields = (None, None, None)

DEFAULT_ID_FIELD = "object_id"
ITEM_FIELDS = ("object_id", "payload", "item_info")
_ITEM_FIELD_SET = frozenset(ITEM_FIELDS)
REJECT_FIELDS = frozenset(["detail", "failure_stage", "source", "row"])  # by which the record of a reject is recognized
ID_BYTES = 16  # of a hash that is an id; a collision of different rows is practically impossible
SHOWN_FIELDS = 10  # names of fields in a message; enough to recognise the file

ItemMaker: TypeAlias = Callable[[Row], Item | Reject]
"""Makes an item of a row, or a reject with the reason."""


def item_maker(source: Source, *, id_field: str | None, id_from: IdFrom | None) -> ItemMaker:
    """Return the function that makes the items of a source; `Rows` describes the options."""
    if source.format == COLLECTION_FORMAT:
        return partial(_of_collection, source.name)
    return _Mapping(
        source.name,
        is_mapped=id_field is not None or id_from is not None or is_table(source.format),
        has_json_texts=has_json_texts(source.format),
        id_field=id_field or DEFAULT_ID_FIELD,
        id_from=id_from,
    ).item


def _of_collection(name: str, row: Row) -> Item:
    """Return the item that a row of a collection holds, with the name by which the user knows the collection."""
    return cast("Item", row.value)._replace(source=name, row=row.number)


@dataclass(frozen=True, slots=True)
class _Mapping:
    """How the rows of a source become items."""

    source: str

    is_mapped: bool
    """Rows that are not in item form are mapped; otherwise they are rejected."""

    has_json_texts: bool
    """See `formats.has_json_texts`."""

    id_field: str
    id_from: IdFrom | None

    def item(self, row: Row) -> Item | Reject:
        """Return the item of a row, or a reject."""
        value = row.value
        if type(value) is dict:
            if "failure_stage" in value and value.keys() >= REJECT_FIELDS:
                return self._corrected(row, value)
            fields = self._item_form(value)
            if fields is None:
                return self._checked(row, value, self._mapped(value, row.number), mapped_by=self.id_field)
            return self._checked(row, value, fields)
        if isinstance(value, PartialRow):
            return self._from_partial(row._replace(value=value.values), value)
        if isinstance(value, ItemError):
            return self._reject(row, _NO_FIELDS, value.detail, stage=value.stage)
        hint = "; `jq -c '.[]'` writes the elements of an array one a line" if isinstance(value, list) else ""
        return self._reject(row, _NO_FIELDS, f"an object was expected, not {kind_of(value)}{hint}")

    def _item_form(self, value: dict[str, Any]) -> _Fields | None:
        """Return the fields of a row in item form, or None if it is to be mapped."""
        object_id, payload, info = map(value.get, ITEM_FIELDS)
        if not self.is_mapped:
            return (object_id, _parsed(payload), _parsed(info)) if self.has_json_texts else (object_id, payload, info)
        if type(object_id) is int and self.id_field == DEFAULT_ID_FIELD and self.id_from is None:
            object_id = str(object_id)
        if type(object_id) not in (str, bytes) or not object_id:
            return None
        is_alone = value.keys() <= _ITEM_FIELD_SET
        payload, info = self._object_in(payload, is_meant=is_alone), self._object_in(info, is_meant=is_alone)
        if isinstance(payload, ItemError) or isinstance(info, ItemError):
            return object_id, payload, info
        # A row without a payload is in item form only if it has no other columns either.
        if (info is None or type(info) is dict) and (type(payload) is dict or (payload is None and is_alone)):
            return object_id, payload, info
        return None

    def _mapped(self, value: dict[str, Any], number: int) -> _Fields:
        """Return the fields that the mapping makes of a foreign row."""
        info = self._object_in(value.get("item_info"))
        info = info if type(info) is dict else None
        taken = [*([] if info is None else ["item_info"]), *([self.id_field] if self.id_from is None else [])]
        payload = _other_fields(value, taken)
        object_id: object
        if self.id_from is None:
            object_id = field_at(value, self.id_field)
        elif self.id_from == "row":
            object_id = f"{PurePath(self.source).name}:{number}"
        else:
            try:
                object_id = hashlib.blake2b(as_text([payload, info]).encode(), digest_size=ID_BYTES).hexdigest()
            except ItemError as error:
                object_id = error
        return str(object_id) if type(object_id) is int else object_id, payload, info

    def _object_in(self, value: object, *, is_meant: bool = False) -> object:
        """Return the object that the text of a column holds as JSON, or the value unchanged.

        Args:
            value: Of a column that may be part of an item.
            is_meant: A text in braces can only be meant as JSON, so it is an error if it is not.
        """
        if not self.has_json_texts or not isinstance(value, str | bytes):
            return value
        text = (value.encode() if isinstance(value, str) else value).strip()
        if not text and is_meant:
            return None
        found = _parsed(value) if text.startswith(b"{") else value
        return value if isinstance(found, ItemError) and not is_meant else found

    def _corrected(self, row: Row, record: dict[str, Any]) -> Item | Reject:
        """Return the item of a reject: from its fields if they make one, otherwise from the row that it keeps."""
        object_id, payload, info = map(record.get, ITEM_FIELDS)
        line = record.get("line")
        if type(line) is not str or (payload is not None and _is_item(object_id, payload, info)):
            return self._checked(row, record, (object_id, payload, info))
        kept = line.encode("utf-8", "surrogatepass")
        try:
            value = parse(kept)
        except ItemError as error:
            value = error
            if len(line) >= KEPT_LINE:
                origin = f"{record['source']}, row {record['row']}"
                value = ItemError(stage=error.stage, detail=f"its `line` was cut short; correct it in {origin}")
        return self._for_rows_of(str(record["source"])).item(row._replace(value=value, text=kept))

    def _for_rows_of(self, origin: str) -> _Mapping:
        """Return the mapping for a row that a reject kept: it is read as in the file that it came from."""
        name = format_name_of(PurePath(origin))
        if name is None:
            return replace(self, has_json_texts=False)
        return replace(self, is_mapped=self.is_mapped or is_table(name), has_json_texts=has_json_texts(name))

    def _from_partial(self, row: Row, partial: PartialRow) -> Item | Reject:
        """Return the item of a row whose unreadable columns are not part of it; reject any other row."""
        is_lost = _ITEM_FIELD_SET.intersection(partial.unreadable)
        fields = None if is_lost else self._item_form(partial.values)
        if fields is None:
            return self._reject(row, _NO_FIELDS, partial.detail)
        made = self._checked(row, partial.values, fields)
        return made._replace(ignored=(*made.ignored, *partial.unreadable)) if isinstance(made, Item) else made

    def _checked(
        self, row: Row, value: dict[str, Any], fields: _Fields, *, mapped_by: str | None = None
    ) -> Item | Reject:
        """Return the item of these fields if they are valid; `mapped_by` is the field of a foreign row's id."""
        object_id, payload, info = fields
        if type(object_id) is bytes:
            try:
                object_id = as_utf8(object_id, mapped_by or DEFAULT_ID_FIELD)
            except ItemError as error:
                return self._reject(row, fields, error.detail)
        if not _is_item(object_id, payload, info):
            return self._reject(row, fields, _what_is_wrong(value, (object_id, payload, info), mapped_by))
        ignored: tuple[str, ...] = ()
        if mapped_by is None and not value.keys() <= _ITEM_FIELD_SET and not value.keys() >= REJECT_FIELDS:
            ignored = tuple(name for name in value if name not in _ITEM_FIELD_SET)
        return Item(object_id, payload, info, self.source, row.number, ignored)

    def _reject(self, row: Row, fields: _Fields, detail: str, *, stage: Stage = Stage.READING) -> Reject:
        value = row.value if isinstance(row.value, dict) else {}
        # Invalid JSON stays text: the record of a reject must not look like an item that was corrected.
        object_id, payload, info = (
            value.get(name) if isinstance(field, ItemError) else field
            for name, field in zip(ITEM_FIELDS, fields, strict=True)
        )
        return Reject(
            object_id=object_id,
            payload=payload if payload is not None else _other_fields(value, ITEM_FIELDS) or None,
            item_info=info,
            detail=detail,
            stage=stage,
            source=self.source,
            row=row.number,
            line=line_of(row),
        )


def _parsed(value: object) -> object:
    """Return the JSON value of a text, or an error; other values as they are."""
    if value is None or not isinstance(value, str | bytes):
        return value
    try:
        return parse(value)
    except ItemError as error:
        return error


def _is_item(object_id: object, payload: object, info: object) -> bool:
    return (
        type(object_id) is str
        and object_id != ""
        and "\0" not in object_id
        and (payload is None or type(payload) is dict)
        and (info is None or type(info) is dict)
    )


def _other_fields(record: dict[str, Any], without: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in without}


# -- reasons ------------------------------------------------------------------------------------------------------


def _what_is_wrong(record: dict[str, Any], fields: _Fields, mapped_by: str | None) -> str:
    object_id, payload, info = fields
    name = mapped_by or DEFAULT_ID_FIELD
    if isinstance(object_id, ItemError):
        return object_id.detail
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
    if isinstance(value, ItemError):
        return f"{name}: {value}"
    if isinstance(value, Pairs):
        return f"{name}: a map that repeats a key is not an object; make each key unique"
    return f"{name} is {kind_of(value)}, not an object"


def _not_an_id(name: str, value: object, *, may_be_integer: bool) -> str:
    if isinstance(value, bool | list | dict):
        return f"{name} is {kind_of(value)}, not text"
    if isinstance(value, int):
        return f"{name} is a number, not text; `--id-field {name}` takes integers as ids too"
    # Such as a column of integers in which pandas found a gap.
    kind = "a float" if isinstance(value, float) else kind_of(value)
    wanted = "integers or text" if may_be_integer else "text"
    return f"{name} {as_text(value)} is {kind}; the column has to be written as {wanted}"


def _names(record: dict[str, Any]) -> str:
    names = list(record)[:SHOWN_FIELDS]
    return ", ".join(names) + (", ..." if len(record) > SHOWN_FIELDS else "") if names else "nothing"
