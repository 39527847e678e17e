"""The tree of commands: every command, and the environment variable of every option."""

from __future__ import annotations

from collections.abc import Iterator

import click

from upsert_cli.cli.option_values import Option
from upsert_cli.cli.settings import is_common

ALL_COMMANDS = "All commands"


def commands_below(ctx: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command in and below a group, in the order of the help; a group itself has none."""
    if not isinstance(ctx.command, click.Group):
        yield ctx
        return
    for name in ctx.command.list_commands(ctx):
        if (command := ctx.command.get_command(ctx, name)) is not None:
            yield from commands_below(click.Context(command, info_name=name, parent=ctx))


def environment_variables(root: click.Context) -> dict[str, dict[str, str]]:
    """Return each variable with its option, such as `--model NAME`, by command; those of all commands come first."""
    variables: dict[str, dict[str, str]] = {ALL_COMMANDS: {}}
    for ctx in commands_below(root):
        for param in ctx.command.params:
            if isinstance(param, Option) and (record := param.get_help_record(ctx)) is not None:
                heading = ALL_COMMANDS if is_common(param) else ctx.command_path
                variables.setdefault(heading, {})[next(param.variables(ctx))] = record[0]
    return variables
