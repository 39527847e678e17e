"""Usage errors that name the intended word where it is clear, and suggest nothing elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from upsert_cli.cli.options.settings import commands_below, list_commands
from upsert_cli.journal.layout import LATEST
from upsert_cli.text import nearest

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
"""The commands of other tools, each with the command here; suggested in the groups that have it."""

_OPTIONS_ELSEWHERE = {
    **dict.fromkeys(("--url", "--host", "--port", "--server"), "--chroma http://HOST:8000"),
    **dict.fromkeys(("--path", "--persist-directory", "--db"), "--chroma DIR"),
}
"""The options of other tools, each with the option here; suggested in the commands that have it."""


def no_such_command(word: str, ctx: click.Context) -> click.UsageError:
    """Return the error for a word that is no command of a group."""
    return click.UsageError(_with_suggestion(f"No such command {word!r}", _command_for(word, ctx)), ctx)


def with_suggestion(error: click.UsageError, ctx: click.Context, typed: Sequence[str]) -> click.UsageError:
    """Return an error in the words after a command, with the intended option or the way to a missing argument."""
    error.ctx = error.ctx or ctx
    match error:
        case click.NoSuchOption():
            message = _with_suggestion(error.message, _option_for(error.option_name, ctx.command))
            if ctx.parent is None:
                message = _before_the_command(error.option_name, ctx, typed) or message
        case click.MissingParameter(param=click.Argument() as argument):
            message = _missing(argument)
        case _:
            return error
    return click.UsageError(message, error.ctx)


def _with_suggestion(message: str, suggestion: str | None) -> str:
    return message if suggestion is None else f"{message.rstrip('.')}; did you mean `{suggestion}`?"


def _command_for(word: str, ctx: click.Context) -> str | None:
    """Return the intended command line of a group, from the program's name on."""
    known = list_commands(ctx)
    meant = _COMMANDS_ELSEWHERE.get(word.lower(), "")
    if meant.partition(" ")[0] not in known:
        meant = nearest(word, known) or ""
    if not meant and "run" in known and (word == "-" or os.path.lexists(word)):
        meant = f"run {word}"
    return f"{ctx.command_path} {meant}" if meant else None


def _option_for(word: str, command: click.Command) -> str | None:
    known = _option_names(command)
    meant = _OPTIONS_ELSEWHERE.get(word.lower(), "")
    if meant.partition(" ")[0] in known:
        return meant
    return nearest(word, {name for name in known if name.startswith("--")})


def _before_the_command(option: str, root: click.Context, typed: Sequence[str]) -> str | None:
    """Return the message for an option that was typed before the command that has it; None if no command has it."""
    assert isinstance(root.command, click.Group)  # noqa: S101  # the program has commands
    name = next((word for word in typed if word in list_commands(root)), "list")
    command = root.command.get_command(root, name)
    inner = () if command is None else commands_below(click.Context(command, info_name=name, parent=root))
    if not any(option in _option_names(ctx.command) for ctx in inner):
        return None
    return f"{option} goes after the command: `{root.command_path} {name} ... {option} ...`"


def _option_names(command: click.Command) -> set[str]:
    return {name for param in command.params if isinstance(param, click.Option) for name in param.opts} | {"--help"}


def _missing(argument: click.Argument) -> str:
    name = (argument.metavar or argument.name or "").strip("[].").upper()
    if name == "TASK_ID":
        return f"TASK_ID is missing; `upsert-cli list` shows the ids, and `{LATEST}` stands for the newest task"
    if isinstance(argument.type, click.Choice):
        return f"{name} is missing; choose one of {', '.join(map(str, argument.type.choices))}"
    return f"{name} is missing"
