"""The message for a wrong command line, with a suggestion where the user's wish is clear, and none elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from upsert_cli.cli.options.help_format import UnknownCommand
from upsert_cli.journal.files import LATEST
from upsert_cli.spelling import nearest

_COMMANDS = {
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

_OPTIONS = {
    **dict.fromkeys(("--url", "--host", "--port", "--server"), "--chroma http://HOST:8000"),
    **dict.fromkeys(("--path", "--persist-directory", "--db"), "--chroma DIR"),
}
"""What other tools call an option -> the option here; it is suggested in the commands that have it."""


def usage_message(error: click.UsageError, ctx: click.Context, *, typed: Sequence[str] = ()) -> str:
    """Return one line that says what is wrong, and what was probably meant.

    Args:
        error: The error.
        ctx: The context in which it was caught.
        typed: All words after the program's name, if the command is not known yet.
    """
    match error:
        case UnknownCommand():
            return _with_suggestion(error.message, _command_for(error.name, error.group, error.group_ctx))
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


def _command_for(word: str, group: click.Group, ctx: click.Context) -> str | None:
    """Return the command that a word of a group stands for, from the program's name on."""
    known = group.list_commands(ctx)
    meant = _COMMANDS.get(word.lower(), "")
    if meant.partition(" ")[0] not in known:
        meant = nearest(word, known) or ""
    if not meant and "run" in known and (word == "-" or os.path.lexists(word)):
        meant = f"run {word}"
    return f"{ctx.command_path} {meant}" if meant else None


def _option_for(word: str, known: set[str]) -> str | None:
    meant = _OPTIONS.get(word.lower(), "")
    return meant if meant.partition(" ")[0] in known else nearest(word, {each for each in known if each[:2] == "--"})


def _before_the_command(error: click.NoSuchOption, typed: Sequence[str]) -> str | None:
    """Return the message for an option of a command that stands before it."""
    root = error.ctx
    if root is None or not isinstance(root.command, click.Group):
        return None
    name = next((word for word in typed if word in root.command.list_commands(root)), "list")
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
