"""The types of options: functions that turn a text of the command line into the value that a task keeps.

A function raises `click.BadParameter`, to which Click adds the option.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
from array import array
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import click

from upsert_cli.errors import ItemError, UsageFault
from upsert_cli.journal.layout import LATEST, valid_task_id

MAX_PERCENT = 100.0
MAX_WATCH_SECONDS = 86_400.0  # seconds between two looks; a day
MAX_SCOPE = 128  # characters; every record of the scope stores them
MAX_VECTOR_BYTES = 8 << 20  # bytes of JSON; the limit of a line of JSONL
_A_VECTOR = "a vector is a JSON list of numbers, such as '[0.12, -3.4]'"
_AGE = r"(\d{1,9})([smhdw])"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def integer(least: int, most: int | None = None) -> Callable[[Any], int]:
    """Return the type of the whole numbers in a range."""

    def convert(value: Any) -> int:
        converted = int(click.INT.convert(value, None, None))
        _check_range(converted, least=least, most=most)
        return converted

    return convert


def number(least: float, most: float | None = None) -> Callable[[Any], float]:
    """Return the type of the numbers in a range, without `nan`, which compares as if it were in every range."""

    def convert(value: Any) -> float:
        converted = float(click.FLOAT.convert(value, None, None))
        if math.isnan(converted):
            raise click.BadParameter(f"{value!r} is not a number")
        _check_range(converted, least=least, most=most)
        return converted

    return convert


def _check_range(number: float, *, least: float, most: float | None) -> None:
    if number < least:
        raise click.BadParameter(f"{number:,} is too small: it has to be at least {least:,}")
    if most is not None and number > most:
        raise click.BadParameter(f"{number:,} is too large: it has to be at most {most:,}")


def unicode_text(value: Any) -> Any:
    """Return a value; text as Unicode, even if the locale's encoding is ASCII.

    Text that is not valid UTF-8 is refused, since neither a journal nor a collection could store it.
    """
    if not isinstance(value, str) or value.isascii() or value == value.encode(errors="replace").decode():
        return value
    try:
        return os.fsencode(value).decode("utf-8")
    except UnicodeError as error:
        raise click.BadParameter(f"{value!r} is not valid UTF-8") from error


def task_id(value: str) -> str:
    """Return the id of a task, the beginning of one, or `latest`; `Journal.resolve` finds the task."""
    if not valid_task_id(value):
        raise click.BadParameter(
            f"{value!r} is no task id: up to 128 letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return value


def new_task_id(value: str) -> str:
    """Return an id that a new task may get."""
    if value == LATEST:
        raise click.BadParameter(f"{LATEST!r} stands for the newest task, so no task can have it as its id")
    return task_id(value)


def moment(value: str) -> str:
    """Return the moment of an age or a date in UTC, as the journal writes it; dates are local unless they say more."""
    try:
        if (age := re.fullmatch(_AGE, value)) is not None:
            found = datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
        else:
            found = datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{value!r} is neither an age such as 30m, 2h, 90d or 4w nor a date such as 2026-11-24T18:00"
        ) from error
    return found.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")  # strftime does not pad years below 1000


def chroma_target(value: str) -> str:
    """Return a target in the spelling that a task keeps; a password in a bad address is not repeated."""
    from upsert_cli.store.address import canonical_target

    if not value:  # a path would take it for the current folder, but it is an unset variable of the shell
        raise click.BadParameter("it is empty; name a folder or a server")
    try:
        return canonical_target(value)
    except UsageFault as error:
        raise click.BadParameter(str(error)) from error


def scope(value: str) -> str:
    """Return the name of a scope."""
    if not value.strip() or not value.isprintable() or len(value) > MAX_SCOPE:
        raise click.BadParameter(f"{value!r} cannot be the name of a scope: use up to {MAX_SCOPE} printable characters")
    return value


def share(value: str) -> str:
    """Return a number of items, or a percentage."""
    is_share = re.fullmatch(r"\d{1,12}|\d{1,3}(\.\d{1,6})?%", value)
    if not is_share or (value[-1] == "%" and float(value[:-1]) > MAX_PERCENT):
        raise click.BadParameter(f"{value!r} is neither a number of items such as 10 nor a percentage such as 5%")
    return value


def ray_address(value: str) -> str:
    """Return the address of a Ray cluster."""
    if not re.fullmatch(r"auto|local|[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", value):
        hint = "; run upsert-cli on a machine of the cluster instead" if value.startswith("ray://") else ""
        raise click.BadParameter(f"{value!r} is neither auto, local, nor HOST:PORT of a cluster's head{hint}")
    return value


def chroma_filter(value: str) -> dict[str, Any]:
    """Return a filter as a JSON object, whose content Chroma checks."""
    try:
        given = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(
            f"{value!r} is not JSON ({error}); a filter looks like '{{\"year\": 2024}}'"
        ) from error
    if not isinstance(given, dict):
        raise click.BadParameter(f"{value!r} is not a JSON object; a filter looks like '{{\"year\": 2024}}'")
    return given


def json_vector(value: str) -> array[float]:
    """Return a vector, given as a JSON list, the name of a file that holds one, or - for standard input."""
    from upsert_cli.documents.payload import checked_vector  # late: the help does not wait for it

    text, name = _read_vector(value)
    try:
        return checked_vector(json.loads(text, parse_constant=_no_constant), name)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"{name} is not JSON ({error}); {_A_VECTOR}") from error
    except ItemError as error:
        raise click.BadParameter(f"{error}; {_A_VECTOR}") from error


def _no_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which the standard library reads although JSON has no such numbers."""
    raise ValueError(f"{name} is not a number in JSON")


def _read_vector(value: str) -> tuple[bytes, str]:
    """Return the JSON text of a vector and its name."""
    if value.lstrip().startswith("["):
        return value.encode(), "the vector"
    try:
        if value == "-":
            return sys.stdin.buffer.read(MAX_VECTOR_BYTES), "standard input"
        with Path(value).open("rb") as file:
            return file.read(MAX_VECTOR_BYTES), value
    except OSError as error:
        raise click.BadParameter(
            f"{value!r} cannot be read ({error.strerror}); name a file, or give a JSON list"
        ) from error
