"""Values of Parquet columns as Python's values, by a function for each type; no value is changed.

The differences from the same data as JSONL are those that the formats impose: a missing field of a struct is null, not
absent; bytes stay bytes until their use is known (see `json_text.as_utf8`); a map that repeats a key is a list of
pairs, since an object would lose one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from upsert_cli.redaction import error_line
from upsert_cli.sources.json_text import Pairs, as_text, as_utf8
from upsert_cli.sources.parquet_times import dates, durations, times_of_day, timestamps

if TYPE_CHECKING:
    import pyarrow as pa

Column: TypeAlias = "tuple[pa.Array, ...]"
"""A column as the reader returned it; one with INT96 timestamps also as a second reader did, in seconds."""

Convert: TypeAlias = Callable[[Column], list[Any]]
"""Return the values of a column."""


class UnreadableValue(Exception):
    """Raised when a column has a value that Python cannot hold."""

    def __init__(self, path: tuple[str, ...], reason: str) -> None:
        super().__init__(f"`{'.'.join(path)}` cannot be read: {reason}")
        self.path = path
        self.reason = reason


def values_of(name: str, convert: Convert, column: Column) -> list[Any]:
    """Return the values of a column or of a struct's field.

    Raises:
        UnreadableValue: One cannot be read; its path begins with `name`.
    """
    try:
        return convert(column)
    except UnreadableValue as error:
        raise UnreadableValue((name, *error.path), error.reason) from error
    except Exception as error:  # pyarrow and Python raise errors of many kinds
        raise UnreadableValue((name,), error_line(error)) from error


def converter(kind: pa.DataType) -> Convert:
    """Return the function for a type: pyarrow's own, which is the fastest, if it changes nothing."""
    return partial(_plain, kind) if _is_plain(kind) else _exact(kind)


def _plain(kind: pa.DataType, column: Column) -> list[Any]:
    try:
        return _as_pyarrow_does(column)
    except Exception:  # noqa: BLE001  # such as text that is not UTF-8; the slower function finds its field
        return _exact(kind)(column)


def _is_plain(kind: pa.DataType) -> bool:
    """Tell whether pyarrow converts a type without changing a value: it may raise, but never returns another value."""
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
    kinds: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType], Convert]]] = [
        (types.is_dictionary, lambda kind: _after(lambda array: array.dictionary_decode(), kind.value_type)),
        (types.is_run_end_encoded, lambda kind: _after(pc.run_end_decode, kind.value_type)),
        (types.is_map, lambda kind: partial(_maps, converter(kind.key_type), converter(kind.item_type))),
        (_is_list, lambda kind: partial(_lists, converter(kind.value_type))),
        (types.is_struct, lambda kind: partial(_structs, [(field.name, converter(field.type)) for field in kind])),
        (types.is_timestamp, lambda _: timestamps),
        (types.is_date, lambda _: dates),
        (types.is_time, lambda _: times_of_day),
        (types.is_duration, lambda _: durations),
        (types.is_decimal, lambda _: _decimals),
    ]
    return next((convert_of(kind) for is_kind, convert_of in kinds if is_kind(kind)), _as_pyarrow_does)


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
    """Return the function that converts the result of a step, which has this type."""
    convert = converter(kind)
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
    columns = [values_of(name, convert, part) for (name, convert), part in zip(fields, parts, strict=True)]
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
