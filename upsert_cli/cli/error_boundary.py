"""The one error boundary: every error ends a command here, as a message, an exit code and, with --json, events."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from upsert_cli.cli.display.session import Events, Session
from upsert_cli.cli.display.streams import flush_streams, is_writable, stdout_fault
from upsert_cli.cli.display.terminal import Terminal
from upsert_cli.cli.options.command import TYPED, UnknownCommand
from upsert_cli.cli.options.settings import list_commands, setting_unchecked
from upsert_cli.errors import Interrupted, TaskNotFound, UpsertCliError, UsageFault
from upsert_cli.journal.layout import LATEST
from upsert_cli.limits import limit_reached
from upsert_cli.signals import EndedBySignal, die_by_signal
from upsert_cli.text import nearest

LOOKING_BACK = ("info", "report", "verify")  # a CI step runs these after a load, even if it created no task

_COMMANDS_ELSEWHERE = {
    "load": "run",
    "import": "run",
    "upsert": "run",
    "ingest": "run",
    "status": "info",
    "show": "info",
    "logs": "info --failed TASK_ID",
    "retry": "restart",
    "resume": "restart",
    "continue": "restart",
    "stop": "cancel",
    "kill": "cancel",
    "ls": "list",
    "tasks": "list",
    "collection": "collections",
    "search": "query",
    "worker": "work",
    "clean": "prune",
    "settings": "config show",
    "delete": "collections delete",
    "remove": "delete",
    "rm": "delete",
    "drop": "delete",
    "download": "fetch",
}
"""What other tools call a command -> the command here; it is suggested in the groups that have it."""

_OPTIONS_ELSEWHERE = {
    **dict.fromkeys(("--url", "--host", "--port", "--server"), "--chroma http://HOST:8000"),
    **dict.fromkeys(("--path", "--persist-directory", "--db"), "--chroma DIR"),
}
"""What other tools call an option -> the option here; it is suggested in the commands that have it."""


def end_with(error: BaseException, ctx: click.Context) -> NoReturn:
    """Show an error and exit with its code, or die by its signal."""
    match error:
        case click.UsageError():
            show_wrong_usage(error, ctx)
        case Interrupted():
            _terminal(ctx).error(str(error))
            number = error.signal_number
        case EndedBySignal():
            if error.number != signal.SIGINT:  # the user who pressed Ctrl-C knows
                _terminal(ctx).error(str(error))
            number = error.number
        case KeyboardInterrupt():  # raised by a library that handles the signal itself
            number = signal.SIGINT
        case _:
            _end_with_failure(error, ctx)
    flush_streams()
    die_by_signal(number)


def show_wrong_usage(error: click.UsageError, ctx: click.Context, *, typed: Sequence[str] = ()) -> NoReturn:
    """Show a usage error in one line, and exit; `typed` are the words of a command line that names no command yet."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
    else:
        message = _usage_message(error, ctx, typed=typed)
        _print_final_events(message, error.exit_code, ctx)
        wrong = error.ctx or ctx
        what = "commands" if isinstance(wrong.command, click.Group) else "options"
        _terminal(ctx).error(f"{message.rstrip('.')} (`{wrong.command_path} --help` lists the {what})")
    ctx.exit(error.exit_code)


def _end_with_failure(error: BaseException, ctx: click.Context) -> NoReturn:
    known: UpsertCliError | None = stdout_fault() if isinstance(error, OSError) else None
    known = known or limit_reached(error, by_words=isinstance(error, ImportError))
    is_bug = known is None and not isinstance(error, UpsertCliError | OSError)
    shown = known or error
    exit_code: int = getattr(shown, "exit_code", UpsertCliError.exit_code)
    _print_final_events(str(shown), exit_code, ctx)
    terminal = _terminal(ctx)
    if is_bug or terminal.verbose:
        import traceback

        for line in "".join(traceback.format_exception(shown)).splitlines():
            terminal.print(line)
    message = f"this is a bug, please report it ({type(shown).__name__}: {shown})" if is_bug else str(shown)
    # For a task that was never created, the step that should have created it already has an annotation.
    is_second = isinstance(shown, TaskNotFound) and ctx.invoked_subcommand in LOOKING_BACK
    terminal.error(message, annotated=not is_second)
    ctx.exit(exit_code)


def _print_final_events(message: str, exit_code: int, ctx: click.Context) -> None:
    """Print error and summary for a command that was to print events, unless its report has already done so."""
    if (typed := ctx.meta.get(TYPED)) is None:
        return
    session: Session | None = ctx.find_root().obj
    events = Events(_terminal(ctx), wanted=_wants_json(*typed)) if session is None else session.events
    if not events.has_summary and is_writable():
        events.error(message, exit_code=exit_code)
        events.summary(None, exit_code=exit_code, seconds=0.0, detail=message)


def _wants_json(ctx: click.Context, args: list[str]) -> bool:
    """Look for the option wherever it may be set, although the options cannot all be read."""
    lenient: dict[str, Any] = dict.fromkeys(("resilient_parsing", "ignore_unknown_options", "allow_extra_args"), True)
    probe = ctx.command.make_context(ctx.info_name, args, parent=ctx.parent, **lenient)
    if probe.get_parameter_source("json") is not ParameterSource.DEFAULT:
        return bool(probe.params["json"])
    wanted = next(param for param in ctx.command.params if param.name == "json")
    with suppress(UsageFault):  # a file that cannot be read sets nothing
        setting = setting_unchecked(wanted, probe)
        return setting is not None and setting.value is True
    return False


def _terminal(ctx: click.Context) -> Terminal:
    session: Session | None = ctx.find_root().obj
    return Terminal.of(ctx) if session is None else session.terminal


# -- wrong command lines: a suggestion where the user's wish is clear, and none elsewhere -------------------------


def _usage_message(error: click.UsageError, ctx: click.Context, *, typed: Sequence[str] = ()) -> str:
    """Return one line that names the mistake and, where it is clear, the intended word.

    Args:
        error: The error.
        ctx: The context in which it was caught.
        typed: All words after the program's name, if the command is not known yet.
    """
    match error:
        case UnknownCommand():
            return _with_suggestion(error.message, _command_for(error.name, error.ctx or ctx))
        case click.NoSuchOption(ctx=click.Context(parent=None)):
            return _before_the_command(error, typed) or error.message
        case click.NoSuchOption():
            command = (error.ctx or ctx).command
            return _with_suggestion(error.message, _option_for(error.option_name, _options_of(command)))
        case click.MissingParameter(param=click.Argument() as argument):
            return _missing(argument)
    return " ".join(error.format_message().split())


def _with_suggestion(message: str, suggestion: str | None) -> str:
    return message if suggestion is None else f"{message.rstrip('.')}; did you mean `{suggestion}`?"


def _command_for(word: str, ctx: click.Context) -> str | None:
    """Return the command that a word of a group stands for, from the program's name on."""
    known = list_commands(ctx)
    meant = _COMMANDS_ELSEWHERE.get(word.lower(), "")
    if meant.partition(" ")[0] not in known:
        meant = nearest(word, known) or ""
    if not meant and "run" in known and (word == "-" or os.path.lexists(word)):
        meant = f"run {word}"
    return f"{ctx.command_path} {meant}" if meant else None


def _option_for(word: str, known: set[str]) -> str | None:
    meant = _OPTIONS_ELSEWHERE.get(word.lower(), "")
    return meant if meant.partition(" ")[0] in known else nearest(word, {each for each in known if each[:2] == "--"})


def _before_the_command(error: click.NoSuchOption, typed: Sequence[str]) -> str | None:
    """Return the message for an option of a command that stands before it."""
    root = error.ctx
    if root is None or not isinstance(root.command, click.Group):
        return None
    name = next((word for word in typed if word in list_commands(root)), "list")
    command = root.command.get_command(root, name)
    if isinstance(command, click.Group):
        command = next((command.get_command(root, one) for one in command.list_commands(root)), None)
    if command is None or error.option_name not in _options_of(command):
        return None
    return f"{error.option_name} goes after the command: `{root.command_path} {name} ... {error.option_name} ...`"


def _options_of(command: click.Command) -> set[str]:
    return {name for param in command.params if isinstance(param, click.Option) for name in param.opts} | {"--help"}


def _missing(argument: click.Argument) -> str:
    name = (argument.metavar or argument.name or "").strip("[].")
    if name == "TASK_ID":
        return f"TASK_ID is missing; `upsert-cli list` shows the ids, and `{LATEST}` stands for the newest task"
    if isinstance(argument.type, click.Choice):
        return f"{name.upper()} is missing; choose one of {', '.join(map(str, argument.type.choices))}"
    return f"{name.upper()} is missing"
