"""Rows as items: rows in item form unchanged, other rows by the mapping, and rejects that were corrected.

A row is in item form if it has an `object_id`, and its `payload` and `item_info`, where present, are objects. Every
other row is foreign: all its columns make up the payload, even a column called `payload`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, Literal, TypeAlias, cast

from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.formats import COLLECTION_FORMAT, format_name_of, has_json_texts, is_table
from upsert_cli.sources.item import (
    DEFAULT_ID_FIELD,
    ITEM_FIELDS,
    KEPT_LINE,
    REJECT_FIELDS,
    Item,
    PartialRow,
    Reject,
    Row,
    line_of,
)
from upsert_cli.sources.item_faults import Fields, fault_in, is_item
from upsert_cli.sources.json_text import parse
from upsert_cli.sources.source import Source
from upsert_cli.sources.values import as_text, as_utf8, field_at, kind_of

IdFrom: TypeAlias = Literal["row", "hash"]

_NO_FIELDS: Fields = (None, None, None)
_ITEM_FIELD_SET = frozenset(ITEM_FIELDS)
ID_BYTES = 16  # of a hash that is an id; equal hashes of different rows are practically impossible

ItemMaker: TypeAlias = Callable[[Row], Item | Reject]
"""Returns the item of a row, or a reject with the reason."""


def item_maker(source: Source, *, id_field: str | None, id_from: IdFrom | None) -> ItemMaker:
    """Return the function that makes the items of a source; `Rows` describes the options."""
    if source.format == COLLECTION_FORMAT:
        return lambda row: _of_collection(row, source.name)
    return _Mapping(
        source.name,
        is_mapped=id_field is not None or id_from is not None or is_table(source.format),
        has_json_texts=has_json_texts(source.format),
        id_field=id_field or DEFAULT_ID_FIELD,
        id_from=id_from,
    ).item


def _of_collection(row: Row, name: str) -> Item:
    """Return the item in a row of a collection, with the name that the user gave the collection."""
    return cast("Item", row.value)._replace(source=name, row=row.number)


@dataclass(frozen=True, slots=True)
class _Mapping:
    """The mapping of a source's rows to items."""

    source: str
    """`Source.name`, such as `data/a.jsonl`."""

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
            return self._of_partial(row._replace(value=value.values), value)
        if isinstance(value, ItemError):
            return self._reject(row, _NO_FIELDS, value.detail, stage=value.stage)
        hint = "; `jq -c '.[]'` writes the elements of an array one a line" if isinstance(value, list) else ""
        return self._reject(row, _NO_FIELDS, f"an object was expected, not {kind_of(value)}{hint}")

    # -- rows in item form ----------------------------------------------------------------------------------------

    def _item_form(self, value: dict[str, Any]) -> Fields | None:
        """Return the fields of a row in item form, or None for a row to map."""
        object_id, payload, info = map(value.get, ITEM_FIELDS)
        if not self.is_mapped:
            return (object_id, _parsed(payload), _parsed(info)) if self.has_json_texts else (object_id, payload, info)
        if type(object_id) is int and self.id_field == DEFAULT_ID_FIELD and self.id_from is None:
            object_id = str(object_id)
        if type(object_id) not in (str, bytes) or not object_id:
            return None
        is_alone = value.keys() <= _ITEM_FIELD_SET
        payload, info = self._object_in(payload, is_meant=is_alone), self._object_in(info, is_meant=is_alone)
        # A row without a payload is in item form only if it has no other columns either.
        has_payload = type(payload) is dict or (payload is None and is_alone)
        has_form = has_payload and (info is None or type(info) is dict)
        is_broken = isinstance(payload, ItemError) or isinstance(info, ItemError)
        return (object_id, payload, info) if has_form or is_broken else None

    def _object_in(self, value: object, *, is_meant: bool = False) -> object:
        """Return the object that the text of a column holds as JSON, or the value unchanged.

        Args:
            value: A column that may be a part of an item.
            is_meant: A text can only be meant as JSON, so invalid JSON in braces is an error.
        """
        if not self.has_json_texts or not isinstance(value, str | bytes):
            return value
        text = (value.encode() if isinstance(value, str) else value).strip()
        if not text and is_meant:
            return None
        found = _parsed(value) if text.startswith(b"{") else value
        return value if isinstance(found, ItemError) and not is_meant else found

    def _of_partial(self, row: Row, partial: PartialRow) -> Item | Reject:
        """Return the item of a row whose unreadable columns are not part of the item; reject any other row."""
        is_lost = _ITEM_FIELD_SET.intersection(partial.unreadable)
        fields = None if is_lost else self._item_form(partial.values)
        if fields is None:
            return self._reject(row, _NO_FIELDS, partial.detail)
        made = self._checked(row, partial.values, fields)
        return made._replace(ignored=(*made.ignored, *partial.unreadable)) if isinstance(made, Item) else made

    # -- foreign rows ---------------------------------------------------------------------------------------------

    def _mapped(self, value: dict[str, Any], number: int) -> Fields:
        """Return the fields that the mapping makes of a foreign row."""
        info = self._object_in(value.get("item_info"))
        info = info if type(info) is dict else None
        used = [*([] if info is None else ["item_info"]), *([self.id_field] if self.id_from is None else [])]
        payload = _other_fields(value, used)
        if self.id_from is not None:
            return self._made_id(number, payload, info), payload, info
        object_id = field_at(value, self.id_field)
        return str(object_id) if type(object_id) is int else object_id, payload, info

    def _made_id(self, number: int, payload: dict[str, Any], info: object) -> str | ItemError:
        """Return an id for a row that has none, or the error if its values have no hash."""
        if self.id_from == "row":
            return f"{PurePath(self.source).name}:{number}"
        try:
            return hashlib.blake2b(as_text([payload, info]).encode(), digest_size=ID_BYTES).hexdigest()
        except ItemError as error:
            return error

    # -- corrected rejects ----------------------------------------------------------------------------------------

    def _corrected(self, row: Row, record: dict[str, Any]) -> Item | Reject:
        """Return the item of a reject: from its fields if they make an item, otherwise from the row in `line`."""
        object_id, payload, info = map(record.get, ITEM_FIELDS)
        line = record.get("line")
        if type(line) is not str or (payload is not None and is_item(object_id, payload, info)):
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
        """Return the mapping for a row that a reject kept: the mapping for the format of the original file."""
        name = format_name_of(PurePath(origin))
        if name is None:
            return replace(self, has_json_texts=False)
        return replace(self, is_mapped=self.is_mapped or is_table(name), has_json_texts=has_json_texts(name))

    # -- items and rejects ----------------------------------------------------------------------------------------

    def _checked(
        self, row: Row, value: dict[str, Any], fields: Fields, *, mapped_by: str | None = None
    ) -> Item | Reject:
        """Return the item of some fields if they are valid; `mapped_by` is the field of a foreign row's id."""
        object_id, payload, info = fields
        if type(object_id) is bytes:
            try:
                object_id = as_utf8(object_id, mapped_by or DEFAULT_ID_FIELD)
            except ItemError as error:
                return self._reject(row, fields, error.detail)
        if not is_item(object_id, payload, info):
            return self._reject(row, fields, fault_in((object_id, payload, info), value, mapped_by))
        ignored: tuple[str, ...] = ()
        if mapped_by is None and not value.keys() <= _ITEM_FIELD_SET and not value.keys() >= REJECT_FIELDS:
            ignored = tuple(name for name in value if name not in _ITEM_FIELD_SET)
        return Item(object_id, payload, info, self.source, row.number, ignored)

    def _reject(self, row: Row, fields: Fields, detail: str, *, stage: Stage = Stage.READING) -> Reject:
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
    """Return the JSON value of a text, or an error; return other values unchanged."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return parse(value)
    except ItemError as error:
        return error


def _other_fields(record: dict[str, Any], without: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in without}
