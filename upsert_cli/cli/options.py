"""The options that every command takes, and what all options have in common.

Every option is also an environment variable: `UPSERT_CLI_JOURNAL` for the common ones, `UPSERT_CLI_RUN_MODEL` and the
like, made from the command's name, for the others.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import click
from click.core import ParameterSource

from upsert_cli.cli.terminal import Terminal
from upsert_cli.folders import state_folder
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.tasks import valid_task_id

Command: TypeAlias = Callable[..., None]
Decorator: TypeAlias = Callable[[Command], Command]

OWN_TO_A_COMMAND = {"collection", "task_id"}  # what would be wrong for the sister command


class Option(click.Option):
    """An option that says which environment variable it came from, and that `categories run` shares with `run`."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Returns the value of the first of the option's variables that is set and not empty."""
        return next((value for name in self._variables(ctx) if (value := os.environ.get(name))), None)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Returns the value, or fails for text that no journal and no collection could hold; paths may be any bytes."""
        cast = super().type_cast_value(ctx, value)
        for text in cast if isinstance(cast, tuple) else (cast,):
            if isinstance(text, str) and not text.isascii() and text != text.encode(errors="replace").decode():
                raise click.BadParameter(f"{text!r} is not valid UTF-8", ctx=ctx, param=self)
        return cast

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Returns what a bad value was given by: the option as typed, or the variable."""
        hint = click.Parameter.get_error_hint(self, ctx)
        if ctx is None or ctx.get_parameter_source(self.name) is not ParameterSource.ENVIRONMENT:
            return hint
        variable = next((name for name in self._variables(ctx) if os.environ.get(name)), None)
        return f"the environment variable {variable} ({hint})"

    def _variables(self, ctx: click.Context) -> Iterator[str]:
        if isinstance(self.envvar, str):
            yield self.envvar
        elif self.name and ctx.auto_envvar_prefix:
            yield f"{ctx.auto_envvar_prefix}_{self.name.upper()}"
            if ctx.auto_envvar_prefix.endswith("_CATEGORIES_RUN") and self.name not in OWN_TO_A_COMMAND:
                yield f"{ctx.auto_envvar_prefix.removesuffix('_CATEGORIES_RUN')}_RUN_{self.name.upper()}"


option = functools.partial(click.option, cls=Option, show_envvar=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What every command works with."""

    journal: Journal
    terminal: Terminal


class TaskId(click.ParamType[str]):
    """A task's id, checked before anything is looked up."""

    name = "task id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the id, or fails with the rule that it breaks."""
        if not valid_task_id(value):
            self.fail(f"{value!r} is no task id: up to 128 letters, digits, '.', '_' and '-', a letter or digit first")
        return str(value)


def common_options(command: Command) -> Command:
    """Adds the options that every command takes, and hands it a `Session` in their place."""

    @option(
        "--journal",
        type=click.Path(file_okay=False, path_type=Path),
        default=state_folder,
        show_default="the user's state folder",
        envvar="UPSERT_CLI_JOURNAL",
        metavar="DIR",
        help="Where tasks are kept.",
    )
    @option(
        "-q",
        "--quiet",
        is_flag=True,
        envvar="UPSERT_CLI_QUIET",
        help="Print nothing on success, a complete report else.",
    )
    @option(
        "-v",
        "--verbose",
        is_flag=True,
        envvar="UPSERT_CLI_VERBOSE",
        help="Show tracebacks and what the libraries say.",
    )
    @option(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        envvar="UPSERT_CLI_COLOR",
        help="Colors on stderr; NO_COLOR is honoured.",
    )
    @option(
        "--progress",
        type=click.Choice(["auto", "bar", "plain", "none"]),
        default="auto",
        envvar="UPSERT_CLI_PROGRESS",
        help="Bars on a terminal, a line every 30 s in CI, else nothing.",
    )
    @functools.wraps(command)
    def wrapped(**options: Any) -> None:
        journal = Journal(options.pop("journal").expanduser().absolute())
        names = ("quiet", "verbose", "color", "progress")
        terminal = Terminal(**{name: options.pop(name) for name in names})
        session = Session(journal=journal, terminal=terminal)
        click.get_current_context().find_root().obj = session
        try:
            command(session, **options)
        finally:
            for warning in journal.warnings:  # damage to the journal is never silent
                terminal.warn(warning)

    return wrapped


def json_option(text: str) -> Decorator:
    """Returns the option for output that programs read."""
    return option("--json", is_flag=True, help=text)
