"""Decorators that add options, and the options that every command takes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from upsert_cli.cli.events import Events
from upsert_cli.cli.help_format import COMMON, OWN
from upsert_cli.cli.option_values import Option
from upsert_cli.cli.settings import CHOICE_OF_FILE
from upsert_cli.cli.streams import require_stdout
from upsert_cli.cli.terminal import Terminal
from upsert_cli.context import RunContext
from upsert_cli.journal.journal import Journal
from upsert_cli.paths import expanded, no_home, state_folder
from upsert_cli.report.printed_commands import PrintedCommands

if TYPE_CHECKING:
    from upsert_cli.journal.task import Task

Command: TypeAlias = Callable[..., None]
Decorator: TypeAlias = Callable[..., Command]


def option(*names: str, **attributes: Any) -> Decorator:
    """Return a decorator that adds an option; `under` gives it a heading."""

    def decorate(command: Command, *, heading: str = OWN) -> Command:
        return click.option(*names, cls=Option, heading=heading, **attributes)(command)

    return decorate


def under(heading: str, *options: Decorator) -> Iterator[Decorator]:
    """Yield options with a heading in the help."""
    return (functools.partial(each, heading=heading) for each in options)


def all_of(options: Iterable[Decorator]) -> Decorator:
    """Return a decorator that adds several options in their order."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(list(options)):
            command = decorator(command)
        return command

    return decorate


class Invocation:
    """The outputs and the journal that a command works with."""

    def __init__(self, folder: Path | None, terminal: Terminal, events: Events) -> None:
        self.terminal = terminal
        self.events = events
        self._journal = None if folder is None else Journal(expanded(folder).absolute())
        self._shown_warnings: set[str] = set()

    @property
    def journal(self) -> Journal:
        """The journal, for commands that need it.

        Raises:
            UpsertCliError: The user names none and has no home folder.
        """
        if self._journal is None:
            raise no_home("the journal")
        return self._journal

    @property
    def context(self) -> TerminalContext:
        """The surroundings of a run that is not a task."""
        return TerminalContext(self.terminal)

    def task_json(self, task: Task, *, running: bool) -> dict[str, Any]:
        """Return a task as `--json` prints it."""
        return self.terminal.printed.in_task(task).as_json(running=running)

    def show_warnings(self) -> None:
        """Show the damage that the journal has found since the last time."""
        for warning in self._journal.warnings if self._journal is not None else ():
            if warning not in self._shown_warnings:
                self._shown_warnings.add(warning)
                self.terminal.warning(warning)


class TerminalContext(RunContext):
    """A run's context that shows its messages; a signal ends the command itself."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def info(self, message: str) -> None:
        """Show a message."""
        self._terminal.info(message)

    def warning(self, message: str) -> None:
        """Show a warning."""
        self._terminal.warning(message)


_COMMON = tuple(
    under(
        COMMON,
        option(
            "--journal",
            type=click.Path(file_okay=False, path_type=Path),
            default=state_folder,
            show_default="the user's state folder",
            envvar="UPSERT_CLI_JOURNAL",
            metavar="DIR",
            help="The journal.",
        ),
        option(
            "--config",
            type=click.Path(dir_okay=False, path_type=Path),
            envvar="UPSERT_CLI_CONFIG",
            is_eager=True,
            metavar="FILE",
            help="Read settings from FILE, not the usual files.",
        ),
        option(
            "--profile",
            envvar="UPSERT_CLI_PROFILE",
            is_eager=True,
            metavar="NAME",
            help="Prefer the settings under [profile.NAME].",
        ),
        option(
            "-q",
            "--quiet",
            is_flag=True,
            envvar="UPSERT_CLI_QUIET",
            help="Print nothing on success, a report on failure.",
        ),
        option(
            "-v",
            "--verbose",
            is_flag=True,
            envvar="UPSERT_CLI_VERBOSE",
            help="Show tracebacks and messages of libraries.",
        ),
        option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            show_default=False,
            envvar="UPSERT_CLI_COLOR",
            help="When to color messages; NO_COLOR is honored.",
        ),
        option(
            "--progress",
            type=click.Choice(["auto", "bar", "plain", "none"]),
            default="auto",
            show_default=False,
            envvar="UPSERT_CLI_PROGRESS",
            metavar="KIND",
            help="Progress: auto, bar, plain (for logs) or none.",
        ),
    )
)


def common_options(command: Command) -> Command:
    """Add the options that every command takes, and pass the command an `Invocation` in their place."""

    @functools.wraps(command)
    def wrapped(**options: Any) -> None:
        for name in CHOICE_OF_FILE:
            options.pop(name)
        folder: Path | None = options.pop("journal")
        ctx = click.get_current_context()
        shown = {name: options.pop(name) for name in ("quiet", "verbose", "color", "progress")}
        terminal = Terminal(**shown, printed=PrintedCommands.typed_in(ctx))
        events = Events(terminal, wanted=bool(options.get("json")))
        session = ctx.find_root().obj = Invocation(folder, terminal, events)
        try:
            command(session, **options)
        finally:
            session.show_warnings()

    return all_of(_COMMON)(wrapped)


def json_option(text: str) -> Decorator:
    """Return the option for output that programs read."""
    return option("--json", is_flag=True, callback=_require_stdout, help=text)


def _require_stdout(_ctx: click.Context, _param: click.Parameter, wanted: bool) -> bool:  # noqa: FBT001  # click's call
    if wanted:
        require_stdout()
    return wanted
