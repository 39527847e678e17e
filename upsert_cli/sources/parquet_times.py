"""Dates and times of Parquet as Python's, or as text where Python's cannot hold them exactly.

Python's dates and times have microseconds and the years 1 to 9999. A value with nanoseconds is kept as text, and an
invalid date or time is an error.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from upsert_cli.packages import install_command
from upsert_cli.sources.values import ExactText, duration_text

if TYPE_CHECKING:
    import pyarrow as pa

Column: TypeAlias = "tuple[pa.Array, ...]"
"""A column as the reader returned it; for INT96 timestamps, also as a second reader returned it, in seconds."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_NANOS = 10**9  # nanoseconds of a second
_DAY = 86_400 * _NANOS  # nanoseconds
_MAX_DURATION = 999_999_999 * 86_400 * 10**6  # microseconds; timedelta's limit, less its last day
_YEARS = "out of range: Python's calendar has the years 1 to 9999"
_MICROSECONDS_END = 26  # characters of `2023-11-14T22:13:20.123456`, after which come nanoseconds, then the zone


def dates(column: Column) -> list[Any]:
    """Return the dates of a column; raise ValueError for a year that Python does not have."""
    return _in_calendar("a date", column[0])


def timestamps(column: Column) -> list[Any]:
    """Return datetimes, and text for timestamps with nanoseconds.

    Raises:
        ValueError: A year is out of range, or the time zone is unknown here.
    """
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


def times_of_day(column: Column) -> list[Any]:
    """Return times, and text for times with nanoseconds; raise ValueError for a time that is not within a day."""
    return _by_nanoseconds(_time_of_day, column)


def durations(column: Column) -> list[Any]:
    """Return timedeltas, and text for durations that Python cannot hold exactly."""
    return _by_nanoseconds(_duration, column)


def _int96(nanos: pa.Array, seconds: pa.Array) -> list[int | None]:
    """Return the nanoseconds since 1970 of INT96 timestamps.

    pyarrow's nanoseconds overflow outside the years 1677 to 2262, without an error. The difference, a multiple of
    2**64, follows from the whole seconds, which cannot overflow.
    """
    return [
        None if whole is None or n is None else whole * _NANOS + (n - whole * _NANOS) % 2**64
        for n, whole in zip(_integers(nanos), _integers(seconds), strict=True)
    ]


def _in_calendar(what: str, array: pa.Array) -> list[Any]:
    """Return dates or datetimes; `what` is a value's name in an error."""
    import pyarrow as pa

    try:
        values: list[Any] = array.to_pylist()
    except pa.ArrowInvalid as error:
        command = install_command("tzdata")
        raise ValueError(f"its time zone {array.type.tz} is not known here; `{command}` adds time zones") from error
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{what} is {_YEARS}") from error
    return values


def _by_nanoseconds(value_of: Callable[[int], Any], column: Column) -> list[Any]:
    """Return the values that a function makes of the nanoseconds in a column of times or durations."""
    factor = _NANOS // _PER_SECOND[column[0].type.unit]
    return [None if value is None else value_of(value * factor) for value in _integers(column[0])]


def _time_of_day(nanos: int) -> datetime.time | ExactText:
    if nanos == _DAY:  # the end of a day, which Python's times do not have
        return ExactText("24:00:00")
    if not 0 <= nanos < _DAY:
        raise ValueError(f"{duration_text(nanos)} is not a time of day")
    seconds, rest = divmod(nanos, _NANOS)
    time = datetime.time(seconds // 3600, seconds // 60 % 60, seconds % 60, rest // 1000)
    return _with_nanos(time, rest % 1000) if rest % 1000 else time


def _duration(nanos: int) -> datetime.timedelta | ExactText:
    micros, rest = divmod(nanos, 1000)
    if rest or abs(micros) > _MAX_DURATION:
        return ExactText(duration_text(nanos))
    return datetime.timedelta(microseconds=micros)


def _with_nanos(time: datetime.datetime | datetime.time, nanos: int) -> ExactText:
    """Return the text of a time with three more digits."""
    moment = time if isinstance(time, datetime.datetime) else datetime.datetime.combine(datetime.date.min, time)
    text = moment.isoformat(timespec="microseconds")
    text = f"{text[:_MICROSECONDS_END]}{nanos:03d}{text[_MICROSECONDS_END:]}"
    return ExactText(text if isinstance(time, datetime.datetime) else text.partition("T")[2])


def _integers(array: pa.Array) -> list[int | None]:
    integers: list[int | None] = array.cast(f"int{array.type.bit_width}").to_pylist()
    return integers
