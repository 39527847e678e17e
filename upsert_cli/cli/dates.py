"""What is typed for a moment, `2h` or a date -> that moment, as the journal writes it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_AGE = re.compile(r"(\d{1,9})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType[str]):
    """An age such as `90d`, or a date, of the local time zone where it names none."""

    name = "age|date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the moment in UTC, or fails for what is none."""
        try:
            if (age := _AGE.fullmatch(value)) is not None:
                moment = datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
            else:
                moment = datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither an age such as 30m, 2h, 90d or 4w nor a date such as 2026-11-24T18:00")
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")  # years below 1000 have no zeros of their own
