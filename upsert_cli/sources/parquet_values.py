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
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"`{'.'.join(self.path)}` cannot be read: {self.reason}"


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


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a type holds text or bytes in any logical type and encoding."""
    import pyarrow as pa
    from pyarrow import types

    while isinstance(kind, pa.BaseExtensionType | pa.DictionaryType):
        kind = kind.value_type if types.is_dictionary(kind) else kind.storage_type
    return types.is_fixed_size_binary(kind) or kind in (
        pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(),
    )  # fmt: skip


def _plain(kind: pa.DataType, column: Column) -> list[Any]:
    try:
        values: list[Any] = column[0].to_pylist()
    except Exception:  # noqa: BLE001  # such as text that is not UTF-8; the slower function finds its field
        return _exact(kind)(column)
    return values


def _is_plain(kind: pa.DataType) -> bool:
    """Tell whether pyarrow converts a type without changing a value: it may raise, but never returns another value."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return len({field.name for field in fields}) == len(fields) and all(_is_plain(field.type) for field in fields)
    if isinstance(kind, pa.BaseExtensionType | pa.DictionaryType):
        return False
    if _is_list(kind):
        return _is_plain(kind.value_type)
    if types.is_timestamp(kind) or types.is_duration(kind):
        return bool(kind.unit != "ns")
    if types.is_decimal(kind):
        return bool(kind.scale > 0)
    return types.is_null(kind) or types.is_date(kind) or is_text(kind) or _is_number(kind)


def _is_number(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _is_list(kind: pa.DataType) -> bool:
    from pyarrow import types

    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def _exact(kind: pa.DataType) -> Convert:
    """Return the function for a type with values that pyarrow changes or refuses."""
    import pyarrow as pa
    from pyarrow import types

    if isinstance(kind, pa.BaseExtensionType):
        return _of_extension(kind)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _after(_decoded, converter(kind.value_type))
    if types.is_nested(kind):
        return _of_container(kind)
    leaves: list[tuple[Callable[[pa.DataType], bool], Convert]] = [
        (types.is_timestamp, timestamps),
        (types.is_date, dates),
        (types.is_time, times_of_day),
        (types.is_duration, durations),
        (types.is_decimal, _decimals),
    ]
    return next((convert for is_kind, convert in leaves if is_kind(kind)), _as_pyarrow_does)


def _of_container(kind: pa.DataType) -> Convert:
    from pyarrow import types

    if types.is_map(kind):
        return partial(_maps, converter(kind.key_type), converter(kind.item_type))
    if _is_list(kind):
        return partial(_lists, converter(kind.value_type))
    if types.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return partial(_structs, [field.name for field in fields], [converter(field.type) for field in fields])
    return _as_pyarrow_does


def _as_pyarrow_does(column: Column) -> list[Any]:
    values: list[Any] = column[0].to_pylist()
    return values


def _after(step: Callable[[pa.Array], pa.Array], convert: Convert) -> Convert:
    return lambda column: convert(tuple(step(array) for array in column))


def _decoded(array: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else pc.run_end_decode(array)


def _of_extension(kind: pa.DataType) -> Convert:
    """Return the function for the storage of a logical type, such as the text of JSON.

    UUIDs and one-byte booleans become the text and the booleans that JSONL has for them.
    """
    import pyarrow as pa

    if isinstance(kind, pa.UuidType):
        return lambda column: [None if value is None else str(value) for value in column[0].to_pylist()]
    if isinstance(kind, pa.Bool8Type):
        return _as_pyarrow_does
    return _after(lambda array: array.storage, converter(kind.storage_type))


def _decimals(column: Column) -> list[Any]:
    """Return integers if the type has no decimal places: some databases export all integers like that."""
    values: list[Any] = column[0].to_pylist()
    return values if column[0].type.scale > 0 else [None if value is None else int(value) for value in values]


def _structs(names: Sequence[str], fields: Sequence[Convert], column: Column) -> list[Any]:
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two of its fields are called `{repeated}`")
    parts = list(zip(*(array.flatten() for array in column), strict=True))
    columns = [values_of(*each) for each in zip(names, fields, parts, strict=True)]
    if not names:
        return [{} if valid else None for valid in column[0].is_valid().to_pylist()]
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    if not column[0].null_count:
        return rows
    return [row if valid else None for row, valid in zip(rows, column[0].is_valid().to_pylist(), strict=True)]


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
    pairs = [[key, item] for key, item in zip(keys, items, strict=True)]
    texts = [_key_text(key) for key in keys]
    rows: list[Any] = []
    for start, end, valid in zip(ends, ends[1:], column[0].is_valid().to_pylist(), strict=False):
        part = slice(start - begin, end - begin)
        row = dict(zip(texts[part], items[part], strict=True)) if valid else None
        rows.append(Pairs(pairs[part]) if row is not None and len(row) < end - start else row)
    return rows


def _key_text(key: object) -> str:
    """Return the text that a key of a map has as a key of an object."""
    return as_text(key) if isinstance(key, list | dict) else str(key)
