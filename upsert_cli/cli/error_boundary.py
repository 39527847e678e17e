"""The one error boundary: every error ends a command here, as a message, an exit code and, with --json, events."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from upsert_cli.cli.display.invocation import Events
from upsert_cli.cli.display.streams import flush_streams, is_writable, stdout_fault
from upsert_cli.cli.display.terminal import Terminal
from upsert_cli.cli.options.help_format import SectionedCommand
from upsert_cli.cli.options.settings import CHOICE_OF_FILE, setting_unchecked
from upsert_cli.errors import Interrupted, TaskNotFound, UpsertCliError, UsageFault
from upsert_cli.limits import limit_reached
from upsert_cli.report.printed_commands import PrintedCommands
from upsert_cli.signals import EndedBySignal, die_by_signal

if TYPE_CHECKING:
    from upsert_cli.cli.display.invocation import Invocation

LOOKING_BACK = ("info", "report", "verify")  # what a CI step runs after a load, even if the load created no task
TRUE_WORDS = ("1", "true", "t", "yes", "y", "on")  # click's, for a flag in the environment
_TYPED = f"{__name__}.typed"


class EventCommand(SectionedCommand):
    """A command that prints events with --json; the last one is a summary, also after an error."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options, and keep the arguments, in which an error may have to look for --json."""
        ctx.meta[_TYPED] = ctx, list(args)
        return super().parse_args(ctx, args)


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
        from upsert_cli.cli.usage_message import usage_message

        message = usage_message(error, ctx, typed=typed)
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
    if (typed := ctx.meta.get(_TYPED)) is None:
        return
    session: Invocation | None = ctx.find_root().obj
    events = Events(_terminal(ctx), wanted=_wants_json(*typed)) if session is None else session.events
    if not events.has_summary and is_writable():
        events.error(message, exit_code=exit_code)
        events.summary(None, exit_code=exit_code, seconds=0.0, detail=message)


def _wants_json(ctx: click.Context, args: list[str]) -> bool:
    """Look for the option wherever it may be set, although the options cannot all be read."""
    parser = ctx.command.make_parser(ctx)
    parser.ignore_unknown_options = True
    try:
        given, _, _ = parser.parse_args(list(args))
    except click.UsageError:  # an option without its value, for example
        given = {"json": "--json" in args}
    wanted = next(param for param in ctx.command.params if param.name == "json")
    variable = wanted.resolve_envvar_value(ctx)
    if given.get("json") or variable:
        return bool(given.get("json")) or str(variable).lower() in TRUE_WORDS
    for param in ctx.command.params:
        if param.name in CHOICE_OF_FILE and param.name not in ctx.params:
            value = next(iter(given.get(param.name, ())), None) or param.resolve_envvar_value(ctx)
            ctx.params[param.name] = Path(value) if value and param.name == "config" else value
    with suppress(UsageFault):  # a file that cannot be read sets nothing
        setting = setting_unchecked(wanted, ctx)
        return setting is not None and setting.value is True
    return False


def _terminal(ctx: click.Context) -> Terminal:
    session: Invocation | None = ctx.find_root().obj
    return Terminal(printed=PrintedCommands.typed_in(ctx)) if session is None else session.terminal
