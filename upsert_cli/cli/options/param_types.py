"""The types of options: text from the command line becomes the value that a task keeps, or a usage error."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from upsert_cli.errors import UsageFault
from upsert_cli.journal.files import LATEST, valid_task_id
from upsert_cli.paths import expanded

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    TextType: TypeAlias = click.ParamType[str]
    ObjectType: TypeAlias = click.ParamType[dict[str, Any]]
else:
    TextType = ObjectType = click.ParamType  # takes no type argument at run time before Click 8.4

MAX_PERCENT = 100.0
MAX_WATCH_SECONDS = 86_400.0  # seconds between two looks; a day
MAX_SCOPE = 128  # characters; every record of the scope stores them
_AGE = r"(\d{1,9})([smhdw])"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Integer(click.IntRange):
    """A whole number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        number = int(click.INT.convert(value, param, ctx))
        if (fault := _range_fault(number, least=self.min, most=self.max)) is not None:
            self.fail(fault, param, ctx)
        return number


class Number(click.FloatRange):
    """A number in a range; never `nan`, which compares as if it were in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = float(click.FLOAT.convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        if (fault := _range_fault(number, least=self.min, most=self.max)) is not None:
            self.fail(fault, param, ctx)
        return number


def _range_fault(number: float, *, least: float | None, most: float | None) -> str | None:
    if least is not None and number < least:
        return f"{number:,} is too small: it has to be at least {least:,}"
    if most is not None and number > most:
        return f"{number:,} is too large: it has to be at most {most:,}"
    return None


class TaskId(TextType):
    """The id of an existing task, or a word for one; `Journal.resolve` looks it up."""

    name = "task id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id."""
        if not valid_task_id(value):
            self.fail(f"{value!r} is no task id: up to 128 letters, digits, '.', '_' and '-', a letter or digit first")
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer ids from the journal."""
        from upsert_cli.cli.options.completions import task_ids

        return task_ids(ctx, param, incomplete)


class NewTaskId(TaskId):
    """An id that a new task may get."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id."""
        if value == LATEST:
            self.fail(f"{LATEST!r} stands for the newest task, so no task can have it as its id")
        return super().convert(value, param, ctx)


class Moment(TextType):
    """An age such as `90d`, or a date, in the local time zone unless it names another."""

    name = "age|date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the moment in UTC, as the journal writes it."""
        try:
            if (age := re.fullmatch(_AGE, value)) is not None:
                moment = datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: int(age[1])})
            else:
                moment = datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is neither an age such as 30m, 2h, 90d or 4w nor a date such as 2026-11-24T18:00")
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")  # strftime does not pad years below 1000


class ChromaTarget(TextType):
    """A folder, the address of a server, or the cloud, in the spelling that a task keeps."""

    name = "folder|url|cloud"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the target; a password in a bad address is not repeated."""
        from upsert_cli.store.address import canonical_target

        if not value:  # a path would take it for the current folder, but it is an unset variable of the shell
            self.fail("it is empty; name a folder or a server")
        try:
            return canonical_target(str(value))
        except UsageFault as error:
            self.fail(str(error))

    @staticmethod
    def below(folder: Path, value: str) -> str:
        """Return a folder as one below another, and any other target unchanged."""
        from upsert_cli.store.address import names_folder

        return str(folder / expanded(Path(value))) if names_folder(value, below=folder) else value


class Scope(TextType):
    """The name of a scope, which each of its records stores."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name."""
        if not value.strip() or not value.isprintable() or len(value) > MAX_SCOPE:
            self.fail(f"{value!r} cannot be the name of a scope: use up to {MAX_SCOPE} printable characters")
        return str(value)


class Share(TextType):
    """A number of items, or a percentage."""

    name = "n|n%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text unchanged."""
        is_share = re.fullmatch(r"\d{1,12}|\d{1,3}(\.\d{1,6})?%", value)
        if not is_share or (value[-1] == "%" and float(value[:-1]) > MAX_PERCENT):
            self.fail(f"{value!r} is neither a number of items such as 10 nor a percentage such as 5%")
        return str(value)


class RayAddress(TextType):
    """The address of a Ray cluster."""

    name = "auto|local|host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address."""
        if not re.fullmatch(r"auto|local|[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", value):
            hint = "; run upsert-cli on a machine of the cluster instead" if value.startswith("ray://") else ""
            self.fail(f"{value!r} is neither auto, local, nor HOST:PORT of a cluster's head{hint}")
        return str(value)


class Filter(ObjectType):
    """A Chroma filter as a JSON object, whose content Chroma checks."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        """Return the object."""
        try:
            given = json.loads(value)
        except (ValueError, RecursionError) as error:
            self.fail(f"{value!r} is not JSON ({error}); a filter looks like '{{\"year\": 2024}}'")
        if not isinstance(given, dict):
            self.fail(f"{value!r} is not a JSON object; a filter looks like '{{\"year\": 2024}}'")
        return given
