"""The options that every command takes, and what all options have in common.

Every option is also an environment variable: `UPSERT_CLI_JOURNAL` for the common ones, `UPSERT_CLI_RUN_MODEL` and the
like, made from the command's name, for the others. And it is a key in the files of settings; see `configuration`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click
from click.core import ParameterSource

from upsert_cli.cli.settings import CHOICE_OF_FILE, OWN_TO_A_COMMAND, as_typed, setting_of
from upsert_cli.cli.streams import require_stdout
from upsert_cli.cli.terminal import Terminal
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task_ids import LATEST, valid_task_id
from upsert_cli.paths import expanded, no_home, state_folder
from upsert_cli.report.printed_commands import PrintedCommands, remember
from upsert_cli.settings import PROJECT_FILE, USER_FILE, split_list

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

Command: TypeAlias = Callable[..., None]
Decorator: TypeAlias = Callable[[Command], Command]


class Option(click.Option):
    """An option that may be set by a variable or in a file, and says which; `categories run` shares those of `run`."""

    def consume_value(self, ctx: click.Context, opts: Any) -> tuple[Any, ParameterSource]:
        """Returns the value and what gave it: what is typed beats the environment, and that beats the files."""
        if not (self.is_flag or self.multiple) and (typed := opts.get(self.name)):
            if any(each != typed[0] for each in typed) and not ctx.resilient_parsing:
                name = max(self.opts, key=len)
                raise click.UsageError(f"{name} is given {len(typed)} times, with different values; give it once", ctx)
            opts = {**opts, self.name: typed[-1]}
        value, source = super().consume_value(ctx, opts)
        if source is ParameterSource.COMMANDLINE:
            remember(ctx, self.name, value)
        if source is ParameterSource.DEFAULT and (setting := setting_of(self, ctx)) is not None:
            return as_typed(setting, self), ParameterSource.DEFAULT_MAP
        return value, source

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser keep each value that is typed: `consume_value` looks whether one would replace another."""
        if self.is_flag:
            super().add_to_parser(parser, ctx)
        else:
            parser.add_option(obj=self, opts=self.opts, dest=self.name, action="append", nargs=self.nargs)

    def value_from_envvar(self, ctx: click.Context) -> Any:
        """Return the value that a variable gives; the lines of one for a repeatable option are its values."""
        if not self.multiple:
            return super().value_from_envvar(ctx)
        value = self.resolve_envvar_value(ctx)
        return None if value is None else tuple(line for line in value.splitlines() if line.strip()) or None

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Returns the value of the first of the option's variables that is set and not empty."""
        return next((value for name in self._variables(ctx) if (value := os.environ.get(name))), None)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Returns the value, or fails for text that no journal and no collection could hold; paths may be any bytes."""
        if value == "" and isinstance(self.type, click.Path):
            raise click.BadParameter("it is empty; name a folder or a file", ctx=ctx, param=self)
        if self.multiple and isinstance(value, tuple | list):
            value = tuple(part for each in value for part in split_list(each))
        cast = super().type_cast_value(ctx, value)
        if isinstance(cast, tuple):
            return tuple(typed_text(each, ctx, self) for each in cast)
        return typed_text(cast, ctx, self)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Returns what a bad value was given by: the option as typed, or the variable."""
        hint = click.Parameter.get_error_hint(self, ctx)
        source = None if ctx is None else ctx.get_parameter_source(self.name)
        if ctx is not None and source is ParameterSource.ENVIRONMENT:
            return f"the environment variable {self.variable_in_use(ctx)} ({hint})"
        if ctx is not None and source is ParameterSource.DEFAULT_MAP and (setting := setting_of(self, ctx)) is not None:
            return f"`{setting.key}` in {setting.location} ({hint})"
        return hint

    def variable_in_use(self, ctx: click.Context) -> str | None:
        """Returns which of the option's variables is set."""
        return next((name for name in self._variables(ctx) if os.environ.get(name)), None)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Returns what a shell offers as the option's value."""
        from upsert_cli.cli import completions

        by_name = {"collection": completions.collections, "model": completions.models, "chroma": completions.folders}
        if self.name in by_name:
            return by_name[self.name](ctx, self, incomplete)
        return super().shell_complete(ctx, incomplete)

    def _variables(self, ctx: click.Context) -> Iterator[str]:
        if isinstance(self.envvar, str):
            yield self.envvar
        elif self.name and ctx.auto_envvar_prefix:
            yield f"{ctx.auto_envvar_prefix}_{self.name.upper()}"
            if ctx.auto_envvar_prefix.endswith("_CATEGORIES_RUN") and self.name not in OWN_TO_A_COMMAND:
                yield f"{ctx.auto_envvar_prefix.removesuffix('_CATEGORIES_RUN')}_RUN_{self.name.upper()}"


def typed_text(value: Any, ctx: click.Context | None, param: click.Parameter) -> Any:
    """Return a value; text among it as Unicode, also where the locale's encoding is ASCII.

    Raises:
        BadParameter: It is text that is not valid UTF-8, which no journal and no collection could hold.
    """
    if not isinstance(value, str) or value.isascii() or value == value.encode(errors="replace").decode():
        return value
    try:
        return os.fsencode(value).decode("utf-8")
    except UnicodeError as error:
        raise click.BadParameter(f"{value!r} is not valid UTF-8", ctx=ctx, param=param) from error


HOW_TO_REPEAT = "May be repeated, or a list with commas; in a variable also one a line."

option = functools.partial(click.option, cls=Option, show_envvar=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """What every command works with."""

    known_journal: Journal | None
    """None where none is named, and there is no home folder to keep it in."""

    terminal: Terminal
    warned: set[str] = field(default_factory=set)
    """The warnings that were shown."""

    @property
    def journal(self) -> Journal:
        """The journal, for the commands that need it.

        Raises:
            UpsertCliError: None is named, and there is no home folder.
        """
        if self.known_journal is None:
            raise no_home("the journal")
        return self.known_journal

    def show_warnings(self) -> None:
        """Shows what the journal has found since the last time: damage to it is never silent."""
        for warning in self.known_journal.warnings if self.known_journal is not None else ():
            if warning not in self.warned:
                self.warned.add(warning)
                self.terminal.warn(warning)


class TaskId(click.ParamType[str]):
    """The id of a task that exists, or what stands for one: `Journal.resolve` looks it up."""

    name = "task id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the id, or fails with the rule that it breaks."""
        if not valid_task_id(value):
            self.fail(f"{value!r} is no task id: up to 128 letters, digits, '.', '_' and '-', a letter or digit first")
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Returns the ids that a shell offers."""
        from upsert_cli.cli.completions import task_ids

        return task_ids(ctx, param, incomplete)


class NewTaskId(TaskId):
    """An id that a new task may get."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the id, or fail for the word that stands for the newest task."""
        if value == LATEST:
            self.fail(f"{LATEST!r} stands for the newest task, so no task can have it as its id")
        return super().convert(value, param, ctx)


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
        help="auto: bars on a terminal, a line every 30 s with CI set, else nothing. plain: such lines in any log.",
    )
    @option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="UPSERT_CLI_CONFIG",
        is_eager=True,
        show_default=f"./{PROJECT_FILE} and the user's {USER_FILE}",
        metavar="FILE",
        help="TOML with settings, in place of those found; `upsert-cli config show` tells.",
    )
    @option(
        "--profile",
        envvar="UPSERT_CLI_PROFILE",
        is_eager=True,
        metavar="NAME",
        help="Take what the files say under [profile.NAME] before the rest.",
    )
    @functools.wraps(command)
    def wrapped(**options: Any) -> None:
        for name in CHOICE_OF_FILE:
            options.pop(name)
        folder: Path | None = options.pop("journal")
        journal = None if folder is None else Journal(expanded(folder).absolute())
        names = ("quiet", "verbose", "color", "progress")
        ctx = click.get_current_context()
        shown = {name: options.pop(name) for name in names}
        session = Invocation(known_journal=journal, terminal=Terminal(**shown, printed=PrintedCommands.typed_in(ctx)))
        ctx.find_root().obj = session
        try:
            command(session, **options)
        finally:
            session.show_warnings()

    return wrapped


def json_option(text: str) -> Decorator:
    """Return the option for output that programs read."""
    return option("--json", is_flag=True, callback=_require_stdout, help=text)


def _require_stdout(_ctx: click.Context, _param: click.Parameter, wanted: bool) -> bool:  # noqa: FBT001  # click's call
    if wanted:
        require_stdout()
    return wanted


def all_of(options: list[Decorator]) -> Decorator:
    """Returns what adds several options, in their order."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(options):
            command = decorator(command)
        return command

    return decorate
