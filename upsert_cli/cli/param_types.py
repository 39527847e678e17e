"""What is typed as the value of an option -> the one spelling that a task keeps, or why it can be none."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click

from upsert_cli.errors import UsageFault
from upsert_cli.paths import expanded
from upsert_cli.store.locations import canonical_target, names_folder

ALL = 100.0  # percent
MAX_WATCH_SECONDS = 86_400.0  # seconds between two looks; a day
MAX_SCOPE = 128  # characters; each record holds them


class Number(click.FloatRange):
    """A number in a range, which `nan` is not, though it compares as if it were in any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Returns the number, or fails for what is none or out of range."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class ChromaPlace(click.ParamType[str]):
    """A folder, a server's address, or the cloud, in the one spelling that a task keeps."""

    name = "folder|url|cloud"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the place, or fails for an address that cannot be one; its password, if any, is not repeated."""
        if not value:  # for a path that is the current folder, for a user a shell variable that was not set
            self.fail("it is empty; name a folder or a server")
        try:
            return canonical_target(str(value))
        except UsageFault as error:
            self.fail(str(error))

    @staticmethod
    def below(folder: Path, value: str) -> str:
        """Returns a folder as one below another, and any other place as it is."""
        return str(folder / expanded(Path(value))) if names_folder(value, below=folder) else value


class Scope(click.ParamType[str]):
    """The name of a scope, which each of its records holds."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the name, or fails for one that nobody could type again."""
        if not value.strip() or not value.isprintable() or len(value) > MAX_SCOPE:
            self.fail(f"{value!r} is no name of a scope: up to {MAX_SCOPE} characters that can be seen")
        return str(value)


class Share(click.ParamType[str]):
    """A number of items, or a percentage of them."""

    name = "n|n%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the text as it stands, once it is known to be a number or a percentage."""
        if not re.fullmatch(r"\d{1,12}|\d{1,3}(\.\d{1,6})?%", value) or (value[-1] == "%" and float(value[:-1]) > ALL):
            self.fail(f"{value!r} is neither a number of items such as 10 nor a percentage such as 5%")
        return str(value)


class RayAddress(click.ParamType[str]):
    """Where a Ray cluster is."""

    name = "auto|local|host:port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the address, or fails for what is none."""
        if not re.fullmatch(r"auto|local|[^\s:/]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}", value):
            hint = "; run upsert-cli on a machine of the cluster instead" if value.startswith("ray://") else ""
            self.fail(f"{value!r} is neither auto, local, nor HOST:PORT of a cluster's head{hint}")
        return str(value)
