"""Values of Parquet as Python's values, by a function for each type of a column; no value is changed.

The differences from the same data as JSONL are those that the formats impose: a missing field of a struct is null, not
absent; bytes stay bytes until their use is known (see `values.as_utf8`); and a map that repeats a key is a list of
pairs, since an object would lose one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from upsert_cli.errors import ItemError
from upsert_cli.redaction import error_line
from upsert_cli.sources.item import MAX_ROW, PartialRow, too_large
from upsert_cli.sources.parquet_times import Column, dates, durations, times_of_day, timestamps
from upsert_cli.sources.values import Pairs, as_text, as_utf8

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE_BYTES = 8 << 20  # bytes of a batch up to which all its rows become Python values at once
SHOWN_FAULTS = 3  # unreadable columns in the message of a row

Convert: TypeAlias = Callable[[Column], list[Any]]
"""Return the values of a column."""

Readings: TypeAlias = "tuple[pa.RecordBatch, ...]"
"""A batch as the reader returned it; for a file with INT96 timestamps, also those columns in seconds."""

Values: TypeAlias = "dict[str, Any] | PartialRow | ItemError"
"""The values of a row, or the reason why the row cannot be read."""


class UnreadableValue(Exception):
    """Raised when a column has a value that Python cannot hold."""

    def __init__(self, path: tuple[str, ...], reason: str) -> None:
        super().__init__(f"`{'.'.join(path)}` cannot be read: {reason}")
        self.path = path
        self.reason = reason


# -- rows ---------------------------------------------------------------------------------------------------------


def converters_of(schema: pa.Schema) -> Sequence[Convert]:
    """Return the function that converts each column."""
    return [_converter(field.type) for field in schema]


def unpacked(readings: Readings, converters: Sequence[Convert]) -> Iterable[Values]:
    """Return the values of the rows in a batch, converted row by row if they are large or one is unreadable."""
    if readings[0].nbytes <= AT_ONCE_BYTES:
        with suppress(UnreadableValue):
            return _as_dicts(readings, converters)
    rows = range(readings[0].num_rows)
    return (_single(tuple(reading.slice(row, 1) for reading in readings), converters) for row in rows)


def _as_dicts(readings: Readings, converters: Sequence[Convert]) -> list[dict[str, Any]]:
    names = readings[0].schema.names
    columns = [_values_of(name, converters[index], _column(readings, index)) for index, name in enumerate(names)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _single(row: Readings, converters: Sequence[Convert]) -> Values:
    """Return the values of a batch of one row."""
    if row[0].nbytes > MAX_ROW:
        return too_large()
    values: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for index, name in enumerate(row[0].schema.names):
        try:
            [values[name]] = _values_of(name, converters[index], _column(row, index))
        except UnreadableValue as error:
            faults[name] = str(error)
    if not faults:
        return values
    return PartialRow(values, tuple(faults), "; ".join(islice(faults.values(), SHOWN_FAULTS)))


def _column(readings: Readings, index: int) -> Column:
    """Return a column from each reading that has it."""
    first, *others = readings
    name = first.schema.names[index]
    found = [(other, other.schema.get_field_index(name)) for other in others]
    return (first.column(index), *(other.column(at) for other, at in found if at >= 0))


def _values_of(name: str, convert: Convert, column: Column) -> list[Any]:
    """Return the values of a column or of a struct's field.

    Raises:
        UnreadableValue: A value cannot be read; the path of the error begins with `name`.
    """
    try:
        return convert(column)
    except UnreadableValue as error:
        raise UnreadableValue((name, *error.path), error.reason) from error
    except Exception as error:  # pyarrow and Python raise errors of many kinds
        raise UnreadableValue((name,), error_line(error)) from error


# -- types --------------------------------------------------------------------------------------------------------


def _converter(kind: pa.DataType) -> Convert:
    """Return the function for a type: pyarrow's own, which is the fastest, if it changes nothing."""
    return partial(_plain, kind) if _is_plain(kind) else _exact(kind)


def _plain(kind: pa.DataType, column: Column) -> list[Any]:
    try:
        return _as_pyarrow_does(column)
    except Exception:  # noqa: BLE001  # such as text that is not UTF-8; the slower function finds its field
        return _exact(kind)(column)


def _is_plain(kind: pa.DataType) -> bool:
    """Check that pyarrow converts a type without changing a value, although it may raise an error."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(kind):
        fields = list(kind)
        return len({field.name for field in fields}) == len(fields) and all(_is_plain(field.type) for field in fields)
    if isinstance(kind, pa.BaseExtensionType | pa.DictionaryType):
        return False
    if _is_list(kind):
        return _is_plain(kind.value_type)
    if types.is_timestamp(kind) or types.is_duration(kind):
        return bool(kind.unit != "ns")
    if types.is_decimal(kind):
        return bool(kind.scale > 0)
    unchanged = (
        types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_date,
        types.is_string, types.is_large_string, types.is_string_view,
        types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary,
    )  # fmt: skip
    return any(is_kind(kind) for is_kind in unchanged)


def _is_list(kind: pa.DataType) -> bool:
    from pyarrow import types

    lists = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(types, name)(kind) for name in lists)


def _exact(kind: pa.DataType) -> Convert:
    """Return the function for a type with values that pyarrow changes or refuses."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    if isinstance(kind, pa.BaseExtensionType):
        return _of_extension(kind)
    if types.is_dictionary(kind):
        return _after(lambda array: array.dictionary_decode(), kind.value_type)
    if types.is_run_end_encoded(kind):
        return _after(pc.run_end_decode, kind.value_type)
    return _of_nested(kind) if types.is_nested(kind) else _of_scalars(kind)


def _of_nested(kind: pa.DataType) -> Convert:
    from pyarrow import types

    if types.is_map(kind):
        return partial(_maps, _converter(kind.key_type), _converter(kind.item_type))
    if _is_list(kind):
        return partial(_lists, _converter(kind.value_type))
    if types.is_struct(kind):
        return partial(_structs, [(field.name, _converter(field.type)) for field in kind])
    return _as_pyarrow_does


def _of_scalars(kind: pa.DataType) -> Convert:
    from pyarrow import types

    if types.is_timestamp(kind):
        return timestamps
    if types.is_date(kind):
        return dates
    if types.is_time(kind):
        return times_of_day
    if types.is_duration(kind):
        return durations
    return _decimals if types.is_decimal(kind) else _as_pyarrow_does


def _of_extension(kind: pa.DataType) -> Convert:
    """Return the function for the storage of a logical type, such as the text of JSON.

    UUIDs and one-byte booleans become the text and the booleans that JSONL has for them.
    """
    import pyarrow as pa

    if isinstance(kind, pa.UuidType):
        return lambda column: [None if value is None else str(value) for value in column[0].to_pylist()]
    if isinstance(kind, pa.Bool8Type):
        return _as_pyarrow_does
    return _after(lambda array: array.storage, kind.storage_type)


def _after(step: Callable[[pa.Array], pa.Array], kind: pa.DataType) -> Convert:
    """Return the function that converts the result of a step, which has the given type."""
    convert = _converter(kind)
    return lambda column: convert(tuple(step(array) for array in column))


def _as_pyarrow_does(column: Column) -> list[Any]:
    values: list[Any] = column[0].to_pylist()
    return values


def _decimals(column: Column) -> list[Any]:
    """Return integers if the type has no decimal places: some databases export all integers like that."""
    values = _as_pyarrow_does(column)
    return values if column[0].type.scale > 0 else [None if value is None else int(value) for value in values]


def _structs(fields: Sequence[tuple[str, Convert]], column: Column) -> list[Any]:
    names = [name for name, _ in fields]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two of its fields are called `{repeated[0]}`")
    parts = zip(*(array.flatten() for array in column), strict=True)
    columns = [_values_of(name, convert, part) for (name, convert), part in zip(fields, parts, strict=True)]
    valid = column[0].is_valid().to_pylist()
    rows = zip(*columns, strict=True) if names else [()] * len(valid)
    return [dict(zip(names, row, strict=True)) if is_valid else None for row, is_valid in zip(rows, valid, strict=True)]


def _lists(convert: Convert, column: Column) -> list[Any]:
    import pyarrow.compute as pc

    values = convert(tuple(array.flatten() for array in column))
    rows: list[Any] = []
    begin = 0
    for length in pc.list_value_length(column[0]).to_pylist():
        rows.append(None if length is None else values[begin : begin + length])
        begin += length or 0
    return rows


def _maps(convert_keys: Convert, convert_items: Convert, column: Column) -> list[Any]:
    """Return an object for each map, or the list of its pairs where a key is repeated."""
    ends = column[0].offsets.to_pylist()
    begin, length = ends[0], ends[-1] - ends[0]
    keys = convert_keys(tuple(array.keys.slice(begin, length) for array in column))
    items = convert_items(tuple(array.items.slice(begin, length) for array in column))
    keys = [as_utf8(key, "a key") for key in keys]
    texts = [as_text(key) if isinstance(key, list | dict) else str(key) for key in keys]
    rows: list[Any] = []
    for start, end, is_valid in zip(ends, ends[1:], column[0].is_valid().to_pylist(), strict=False):
        part = slice(start - begin, end - begin)
        row = dict(zip(texts[part], items[part], strict=True))
        if is_valid and len(row) < end - start:
            rows.append(Pairs(map(list, zip(keys[part], items[part], strict=True))))
        else:
            rows.append(row if is_valid else None)
    return rows
