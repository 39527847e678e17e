"""Values of Parquet columns as Python's values, by a function for each type; no value is changed.

The differences from the same data as JSONL are those that the formats impose: a missing field of a struct is null, not
absent; bytes stay bytes until their use is known (see `json_text.as_utf8`); a map that repeats a key is a list of
pairs, since an object would lose one. Python's dates and times have microseconds and the years 1 to 9999: a value with
nanoseconds is kept as text, and an invalid date or time is unreadable.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from upsert_cli.packages import install_command
from upsert_cli.redaction import error_line
from upsert_cli.sources.json_text import ExactText, Pairs, as_text, as_utf8, duration_text

if TYPE_CHECKING:
    import pyarrow as pa

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NANOS = 10**9  # nanoseconds of a second
_DAY = 86_400 * _NANOS  # nanoseconds
_MAX_DURATION = 999_999_999 * 86_400 * 10**6  # microseconds; timedelta's limit, less its last day
_YEARS = "out of range: Python's calendar has the years 1 to 9999"
_MICROSECONDS_END = 26  # characters of `2023-11-14T22:13:20.123456`, after which come nanoseconds, then the zone

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
        (types.is_timestamp, lambda _: _timestamps),
        (types.is_date, lambda _: lambda column: _in_calendar("a date", column[0])),
        (types.is_time, lambda _: partial(_of_nanoseconds, _time_of_day)),
        (types.is_duration, lambda _: partial(_of_nanoseconds, _duration)),
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


# -- dates and times ----------------------------------------------------------------------------------------------


def _timestamps(column: Column) -> list[Any]:
    """Return datetimes; text for those with nanoseconds."""
    import pyarrow as pa

    array = column[0]
    if array.type.unit != "ns":
        return _in_calendar("a timestamp", array)
    nanos = _int96(*column) if len(column) > 1 and column[1].type.unit == "s" else _integers(array)
    try:
        micros = pa.array([None if n is None else n // 1000 for n in nanos], pa.timestamp("us", array.type.tz))
    except OverflowError as error:
        raise ValueError(f"a timestamp is {_YEARS}") from error
    return [
        time if n is None or n % 1000 == 0 else _with_nanos(time, n % 1000)
        for time, n in zip(_in_calendar("a timestamp", micros), nanos, strict=True)
    ]


def _int96(nanos: pa.Array, seconds: pa.Array) -> list[int | None]:
    """Return the nanoseconds since 1970 of INT96 timestamps.

    pyarrow's nanoseconds overflow outside the years 1677 to 2262, without an error. The difference, a multiple of
    2**64, follows from the whole seconds, which cannot overflow.
    """
    return [
        None if whole is None or n is None else whole * _NANOS + (n - whole * _NANOS) % 2**64
        for n, whole in zip(_integers(nanos), _integers(seconds), strict=True)
    ]


def _with_nanos(time: datetime.datetime | datetime.time, nanos: int) -> ExactText:
    today = time if isinstance(time, datetime.datetime) else datetime.datetime.combine(datetime.date.min, time)
    text = today.isoformat(timespec="microseconds")
    text = f"{text[:_MICROSECONDS_END]}{nanos:03d}{text[_MICROSECONDS_END:]}"
    return ExactText(text if isinstance(time, datetime.datetime) else text.partition("T")[2])


def _in_calendar(what: str, array: pa.Array) -> list[Any]:
    import pyarrow as pa

    try:
        values: list[Any] = array.to_pylist()
    except pa.ArrowInvalid as error:
        command = install_command("tzdata")
        raise ValueError(f"its time zone {array.type.tz} is not known here; `{command}` adds time zones") from error
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{what} is {_YEARS}") from error
    return values


def _time_of_day(nanos: int) -> datetime.time | ExactText:
    """Return a time; text for one with nanoseconds, and for the end of a day, 24:00:00."""
    if nanos == _DAY:
        return ExactText("24:00:00")
    if not 0 <= nanos < _DAY:
        raise ValueError(f"{duration_text(nanos)} is not a time of day")
    seconds, rest = divmod(nanos, _NANOS)
    time = datetime.time(seconds // 3600, seconds // 60 % 60, seconds % 60, rest // 1000)
    return _with_nanos(time, rest % 1000) if rest % 1000 else time


def _duration(nanos: int) -> datetime.timedelta | ExactText:
    """Return a timedelta; text for one with nanoseconds or longer than Python's longest."""
    micros, rest = divmod(nanos, 1000)
    if rest or abs(micros) > _MAX_DURATION:
        return ExactText(duration_text(nanos))
    return datetime.timedelta(microseconds=micros)


def _of_nanoseconds(value_of: Callable[[int], Any], column: Column) -> list[Any]:
    """Return the values of a column of times of day or durations, made of their nanoseconds."""
    factor = _NANOS // _PER_SECOND[column[0].type.unit]
    return [None if value is None else value_of(value * factor) for value in _integers(column[0])]


def _integers(array: pa.Array) -> list[int | None]:
    integers: list[int | None] = array.cast(f"int{array.type.bit_width}").to_pylist()
    return integers
