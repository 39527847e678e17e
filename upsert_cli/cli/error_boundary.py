"""The one error boundary: every error ends a command here, as a message, an exit code and, with --json, events."""

from __future__ import annotations

import signal
from typing import NoReturn

import click

from upsert_cli.cli.display.session import Events
from upsert_cli.cli.display.streams import flush_streams, is_writable, stdout_fault
from upsert_cli.cli.options.command import session_of
from upsert_cli.errors import Interrupted, TaskNotFound, UpsertCliError
from upsert_cli.limits import limit_reached
from upsert_cli.signals import EndedBySignal, die_by_signal, exit_code_of

LOOKING_BACK = ("info", "report", "verify")  # a CI step runs these after a load, even if it created no task


def end_with(error: Exception | EndedBySignal | KeyboardInterrupt, ctx: click.Context) -> NoReturn:
    """Show an error and exit with its code, or die by its signal."""
    match error:
        case click.UsageError():
            show_wrong_usage(error, ctx)
        case Interrupted():
            session_of(ctx).terminal.error(str(error))
            number = error.signal_number
        case EndedBySignal():
            if error.number != signal.SIGINT:  # the user who pressed Ctrl-C knows
                session_of(ctx).terminal.error(str(error))
            number = error.number
        case KeyboardInterrupt():  # raised by a library that handles the signal itself
            number = signal.SIGINT
        case _:
            _end_with_failure(error, ctx)
    flush_streams()
    die_by_signal(number)


def show_wrong_usage(error: click.UsageError, ctx: click.Context) -> NoReturn:
    """Show a usage error in one line, and exit."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
    else:
        session = session_of(ctx)
        message = " ".join(error.format_message().split())
        _print_final_events(session.events, message, error.exit_code)
        wrong = error.ctx or ctx
        what = "commands" if isinstance(wrong.command, click.Group) else "options"
        session.terminal.error(f"{message.rstrip('.')} (`{wrong.command_path} --help` lists the {what})")
    ctx.exit(error.exit_code)


def _end_with_failure(error: Exception, ctx: click.Context) -> NoReturn:
    shown = _cause_in_the_system(error) or error
    exit_code = exit_code_of(shown)
    session = session_of(ctx)
    _print_final_events(session.events, str(shown), exit_code)
    is_bug = not isinstance(shown, UpsertCliError | OSError)
    if is_bug or session.terminal.verbose:
        import traceback

        for line in "".join(traceback.format_exception(shown)).splitlines():
            session.terminal.print(line)
    message = f"this is a bug, please report it ({type(shown).__name__}: {shown})" if is_bug else str(shown)
    # For a task that was never created, the step that should have created it already has an annotation.
    is_second = isinstance(shown, TaskNotFound) and ctx.invoked_subcommand in LOOKING_BACK
    session.terminal.error(message, annotated=not is_second)
    ctx.exit(exit_code)


def _cause_in_the_system(error: Exception) -> UpsertCliError | None:
    """Return the error that names the cause of a failure: stdout that cannot be written, or a limit of the system."""
    if isinstance(error, OSError) and (fault := stdout_fault()) is not None:
        return fault
    return limit_reached(error, by_words=isinstance(error, ImportError))


def _print_final_events(events: Events, message: str, exit_code: int) -> None:
    """Print error and summary, if events are wanted and the report of the command has not done so already."""
    if not events.has_summary and is_writable():
        events.error(message, exit_code=exit_code)
        events.summary(None, exit_code=exit_code, seconds=0.0, detail=message)
