"""A batch of a Parquet file -> its rows as Python values; those that cannot be read are errors in their place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from upsert_cli.errors import ItemError, Stage
from upsert_cli.stream.items.json_text import JSON_FIELDS, as_text, parse
from upsert_cli.stream.items.jsonl import SHOWN_LINE
from upsert_cli.stream.items.parquet_types import (
    Column,
    Convert,
    UnreadableValue,
    bytes_of,
    converter,
    is_text,
    values_of,
)

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROW = 8 << 20  # bytes; as a line of JSONL
AT_ONCE_BYTES = 8 << 20  # bytes of a batch up to which all its rows become Python values at once

SHOWN_FAULTS = 3  # columns that cannot be read, in the message of a row


Readings: TypeAlias = "tuple[pa.RecordBatch, ...]"
"""A batch as the reader returned it; of a file with INT96 timestamps, also those columns in seconds."""

Converters: TypeAlias = Sequence[Convert]


def converters_of(columns: Iterable[pa.Field], *, mapped: bool) -> Converters:
    """Return the function that makes the values of each column.

    Args:
        columns: Of the batches, in their order.
        mapped: Whether a file in another form is read, in which `payload` and `item_info` may be any text.
    """
    return [
        _json_converter(column.type, mapped=mapped) if column.name in JSON_FIELDS else converter(column.type)
        for column in columns
    ]


def unpacked(readings: Readings, converters: Converters) -> Iterable[dict[str, Any] | ItemError]:
    """Return the rows as Python values: one by one where they are large, or where one of them is broken."""
    if readings[0].nbytes <= AT_ONCE_BYTES:
        with suppress(UnreadableValue):
            return _as_dicts(readings, converters)
    rows = range(readings[0].num_rows)
    return (_single(tuple(reading.slice(row, 1) for reading in readings), converters) for row in rows)


def _single(row: Readings, converters: Converters) -> dict[str, Any] | ItemError:
    if row[0].nbytes > MAX_ROW:
        return too_large()
    values: dict[str, Any] = {}
    faults: list[str] = []
    for place, name in enumerate(row[0].schema.names):
        try:
            [values[name]] = values_of(name, converters[place], _column(row, place))
        except UnreadableValue as error:
            faults.append(str(error))
    return _unreadable(values, faults) if faults else values


def _unreadable(values: dict[str, Any], faults: list[str]) -> ItemError:
    """Return the error of a row, which keeps its other columns, so that the row can be fixed and loaded."""
    line = None
    with suppress(ItemError):  # nested too deep
        line = as_text({name: value for name, value in values.items() if not isinstance(value, ItemError)})[:SHOWN_LINE]
    return ItemError(stage=Stage.READING, detail="; ".join(faults[:SHOWN_FAULTS]), line=line)


def _as_dicts(readings: Readings, converters: Converters) -> list[dict[str, Any]]:
    names = readings[0].schema.names
    columns = [values_of(name, converters[place], _column(readings, place)) for place, name in enumerate(names)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _column(readings: Readings, place: int) -> Column:
    """Return a column in each reading that has it."""
    first, *others = readings
    name = first.schema.names[place]
    places = [(other, other.schema.get_field_index(name)) for other in others]
    return (first.column(place), *(other.column(found) for other, found in places if found >= 0))


def _json_converter(kind: pa.DataType, *, mapped: bool) -> Convert:
    """Return the function for a column in which a text is JSON, and everything else an object."""
    from pyarrow import types

    if is_text(kind):
        return partial(_parsed, mapped=mapped)
    return partial(_objects, converter(kind)) if types.is_map(kind) and not mapped else converter(kind)


def _parsed(column: Column, *, mapped: bool) -> list[Any]:
    if not mapped:
        return [text if text is None else _parsed_text(text) for text in bytes_of(column)]
    # It may as well be any text, or bytes that are none, which are converted as in other columns.
    return [
        _parsed_text(text) if text is not None and text.lstrip()[:1] == b"{" else _as_text_if_utf8(value)
        for text, value in zip(bytes_of(column), converter(column[0].type)(column), strict=True)
    ]


def _parsed_text(text: bytes) -> object:
    try:
        return parse(text)
    except ItemError as error:
        return error


def _as_text_if_utf8(value: object) -> object:
    with suppress(UnicodeDecodeError):
        return value.decode() if isinstance(value, bytes) else value
    return value


def _objects(convert: Convert, column: Column) -> list[Any]:
    """Return the objects that maps are; one with a repeated key is an error, since no item can hold it."""
    return [_repeated_key() if isinstance(value, list) else value for value in convert(column)]


def too_large() -> ItemError:
    """Returns what is wrong with a row that is not made."""
    return _fault(f"the row is larger than {MAX_ROW >> 20} MiB, the limit; divide its text into several items")


def _repeated_key() -> ItemError:
    return _fault("a map that repeats a key is not an object; make each key unique")


def _fault(detail: str) -> ItemError:
    return ItemError(stage=Stage.READING, detail=detail)
