"""The rules for the fields of an item, and the reasons why a row that breaks them is rejected."""

from __future__ import annotations

from itertools import islice
from typing import Any, TypeAlias

from upsert_cli.errors import ItemError
from upsert_cli.sources.item import DEFAULT_ID_FIELD
from upsert_cli.sources.values import Pairs, as_text, field_at, kind_of

SHOWN_FIELDS = 10  # names of fields in a message; enough to recognise the file

_ABSENT = object()

Fields: TypeAlias = tuple[Any, Any, Any]
"""Values that may be the `object_id`, `payload` and `item_info` of an item, or errors in their place."""


def is_item(object_id: object, payload: object, info: object) -> bool:
    """Check whether values are valid as the fields of an item."""
    return (
        type(object_id) is str
        and object_id != ""
        and "\0" not in object_id
        and (payload is None or type(payload) is dict)
        and (info is None or type(info) is dict)
    )


def fault_in(fields: Fields, row: dict[str, Any], mapped_by: str | None) -> str:
    """Return the reason why the fields of a row make no item.

    Args:
        fields: Values for which `is_item` is false.
        row: All values of the row.
        mapped_by: The field of the id, for a foreign row.
    """
    object_id, payload, info = fields
    name = mapped_by or DEFAULT_ID_FIELD
    if isinstance(object_id, ItemError):
        return object_id.detail
    if object_id is None:
        return _no_id(name, row)
    if not isinstance(object_id, str):
        return _not_text(name, object_id, may_be_integer=mapped_by is not None)
    if not object_id or "\0" in object_id:
        return f"{name} holds a NUL character" if object_id else f"{name} is empty"
    is_info = payload is None or type(payload) is dict
    return _not_an_object("item_info", info) if is_info else _not_an_object("payload", payload)


def _no_id(name: str, row: dict[str, Any]) -> str:
    if field_at(row, name, _ABSENT) is None:
        return f"{name} is null, not text"
    names = ", ".join(islice(row, SHOWN_FIELDS)) + (", ..." if len(row) > SHOWN_FIELDS else "")
    hint = "; --id-field takes the id from another field" if name == DEFAULT_ID_FIELD else ""
    return f"{name} is missing (there: {names or 'nothing'}){hint}"


def _not_text(name: str, value: object, *, may_be_integer: bool) -> str:
    if isinstance(value, bool | list | dict):
        return f"{name} is {kind_of(value)}, not text"
    if isinstance(value, int):
        return f"{name} is a number, not text; `--id-field {name}` takes integers as ids too"
    # For example, a column of integers in which pandas found a gap.
    kind = "a float" if isinstance(value, float) else kind_of(value)
    wanted = "integers or text" if may_be_integer else "text"
    return f"{name} {as_text(value)} is {kind}; the column has to be written as {wanted}"


def _not_an_object(name: str, value: object) -> str:
    if isinstance(value, ItemError):
        return f"{name}: {value}"
    if isinstance(value, Pairs):
        return f"{name}: a map that repeats a key is not an object; make each key unique"
    return f"{name} is {kind_of(value)}, not an object"
