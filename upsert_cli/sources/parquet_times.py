"""Dates and times of Parquet as Python's values, or as text if Python cannot hold them exactly.

Python has microseconds and the years 1 to 9999. A value with nanoseconds is kept as text; an invalid date or time
raises ValueError with the reason.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from upsert_cli.packages import install_command
from upsert_cli.sources.json_text import ExactText, duration_text

if TYPE_CHECKING:
    import pyarrow as pa

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NANOS = 10**9  # nanoseconds of a second
_DAY = 86_400 * _NANOS  # nanoseconds
_MAX_DURATION = 999_999_999 * 86_400 * 10**6  # microseconds; timedelta's limit, less its last day
_YEARS = "out of range: Python's calendar has the years 1 to 9999"
_MICROSECONDS_END = 26  # characters of `2023-11-14T22:13:20.123456`, after which come nanoseconds, then the zone


def timestamps(column: tuple[pa.Array, ...]) -> list[Any]:
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


def dates(column: tuple[pa.Array, ...]) -> list[Any]:
    """Return dates."""
    return _in_calendar("a date", column[0])


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


def times_of_day(column: tuple[pa.Array, ...]) -> list[Any]:
    """Return times; text for those with nanoseconds, and for the end of a day, 24:00:00."""
    return [None if nanos is None else _time_of_day(nanos) for nanos in _nanoseconds(column[0])]


def _time_of_day(nanos: int) -> datetime.time | ExactText:
    if nanos == _DAY:
        return ExactText("24:00:00")
    if not 0 <= nanos < _DAY:
        raise ValueError(f"{duration_text(nanos)} is not a time of day")
    seconds, rest = divmod(nanos, _NANOS)
    time = datetime.time(seconds // 3600, seconds // 60 % 60, seconds % 60, rest // 1000)
    return _with_nanos(time, rest % 1000) if rest % 1000 else time


def durations(column: tuple[pa.Array, ...]) -> list[Any]:
    """Return timedeltas; text for those with nanoseconds or longer than Python's longest."""
    return [None if nanos is None else _duration(nanos) for nanos in _nanoseconds(column[0])]


def _duration(nanos: int) -> datetime.timedelta | ExactText:
    micros, rest = divmod(nanos, 1000)
    if rest or abs(micros) > _MAX_DURATION:
        return ExactText(duration_text(nanos))
    return datetime.timedelta(microseconds=micros)


def _nanoseconds(array: pa.Array) -> Sequence[int | None]:
    factor = _NANOS // _PER_SECOND[array.type.unit]
    return [None if value is None else value * factor for value in _integers(array)]


def _integers(array: pa.Array) -> list[int | None]:
    integers: list[int | None] = array.cast(f"int{array.type.bit_width}").to_pylist()
    return integers
