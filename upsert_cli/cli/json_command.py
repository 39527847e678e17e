"""The class of the commands that print events: with --json they end with a summary, whatever went wrong."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from upsert_cli.cli.events import report_failure
from upsert_cli.cli.settings import CHOICE_OF_FILE, setting_unchecked
from upsert_cli.errors import UpsertCliError, UsageFault
from upsert_cli.report.printed_commands import PrintedCommands

TRUE_WORDS = ("1", "true", "t", "yes", "y", "on")  # click's, for a flag in the environment


class Eventful(click.Command):
    """A command of events: with --json they end with a summary also if what was typed cannot be meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the options."""
        typed = list(args)  # which click takes apart
        try:
            return super().parse_args(ctx, args)
        except (click.UsageError, UsageFault) as error:  # the latter of a file of settings
            if self._wants_json(ctx, typed):
                report(error, ctx)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if ctx.params.get("json"):
                report(error, ctx)
            raise

    def _wants_json(self, ctx: click.Context, args: list[str]) -> bool:
        """Looks for the option where it may stand, though not all options can be read."""
        parser = self.make_parser(ctx)
        parser.ignore_unknown_options = True
        try:
            given, _, _ = parser.parse_args(list(args))
        except click.UsageError:  # an option without its value, say
            given = {"json": "--json" in args}
        wanted = next(param for param in self.params if param.name == "json")
        said = wanted.resolve_envvar_value(ctx)
        if given.get("json") or said:
            return bool(given.get("json")) or str(said).lower() in TRUE_WORDS
        for param in self.params:
            if param.name in CHOICE_OF_FILE and param.name not in ctx.params:
                value = next(iter(given.get(param.name, ())), None) or param.resolve_envvar_value(ctx)
                ctx.params[param.name] = Path(value) if value and param.name == "config" else value
        with suppress(UsageFault):  # a file that cannot be read says nothing
            setting = setting_unchecked(wanted, ctx)
            return setting is not None and setting.value is True
        return False


def report(error: click.UsageError | UpsertCliError, ctx: click.Context) -> None:
    """Prints the events of a command that ends before there is anything to run."""
    message = error.format_message() if isinstance(error, click.UsageError) else str(error)
    report_failure(message, error.exit_code, printed=PrintedCommands.typed_in(ctx))
