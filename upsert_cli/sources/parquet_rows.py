"""A batch of a Parquet file -> its rows as Python values; those that cannot be read are errors in their place."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.item import PartialRow
from upsert_cli.sources.parquet_types import Column, Convert, UnreadableValue, converter, values_of

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROW = 8 << 20  # bytes; as a line of JSONL
AT_ONCE_BYTES = 8 << 20  # bytes of a batch up to which all its rows become Python values at once

SHOWN_FAULTS = 3  # columns that cannot be read, in the message of a row


Readings: TypeAlias = "tuple[pa.RecordBatch, ...]"
"""A batch as the reader returned it; of a file with INT96 timestamps, also those columns in seconds."""

Converters: TypeAlias = Sequence[Convert]


def converters_of(schema: pa.Schema) -> Converters:
    """Return the function that makes the values of each column."""
    return [converter(field.type) for field in schema]


def unpacked(readings: Readings, converters: Converters) -> Iterable[dict[str, Any] | PartialRow | ItemError]:
    """Return the rows as Python values: one by one where they are large, or where one of them is broken."""
    if readings[0].nbytes <= AT_ONCE_BYTES:
        with suppress(UnreadableValue):
            return _as_dicts(readings, converters)
    rows = range(readings[0].num_rows)
    return (_single(tuple(reading.slice(row, 1) for reading in readings), converters) for row in rows)


def _single(row: Readings, converters: Converters) -> dict[str, Any] | PartialRow | ItemError:
    if row[0].nbytes > MAX_ROW:
        return too_large()
    values: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for place, name in enumerate(row[0].schema.names):
        try:
            [values[name]] = values_of(name, converters[place], _column(row, place))
        except UnreadableValue as error:
            faults[name] = str(error)
    if not faults:
        return values
    return PartialRow(values, tuple(faults), "; ".join(itertools.islice(faults.values(), SHOWN_FAULTS)))


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


def too_large() -> ItemError:
    """Returns what is wrong with a row that is not made."""
    return _fault(f"the row is larger than {MAX_ROW >> 20} MiB, the limit; divide its text into several items")


def _fault(detail: str) -> ItemError:
    return ItemError(stage=Stage.READING, detail=detail)
