"""The command line: the root group, and the one boundary at which errors become messages and exit codes."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from upsert_cli import __version__, telemetry
from upsert_cli.cli.options import Session
from upsert_cli.cli.terminal import Terminal
from upsert_cli.errors import Interrupted, UpsertCliError
from upsert_cli.stopping import Ended, die_by, end_in_order

# Where each command is; a module is loaded when its command is asked for, so that `list` does not wait for `run`.
COMMANDS = {
    "run": "upsert_cli.cli.run:run",
    "categories": "upsert_cli.cli.run:categories",
    "info": "upsert_cli.cli.tasks:info",
    "list": "upsert_cli.cli.tasks:list_tasks",
    "restart": "upsert_cli.cli.run:restart",
    "cancel": "upsert_cli.cli.tasks:cancel",
    "verify": "upsert_cli.cli.verify:verify",
    "models": "upsert_cli.cli.models:models",
    "journal": "upsert_cli.cli.journal:journal",
}


class Root(click.Group):
    """A group whose commands may raise what they like: it ends here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the commands, in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command and turns an error into its message and its exit code."""
        try:
            return super().invoke(ctx)
        except Interrupted as error:
            _terminal(ctx).fail(str(error))
            _flush()
            die_by(error.signal_number)
        except UpsertCliError as error:
            _explain(ctx, error)
            ctx.exit(error.exit_code)
        except Ended as error:
            _terminal(ctx).fail(f"stopped by {signal.Signals(error.number).name} before anything was loaded")
            _flush()
            die_by(error.number)
        except KeyboardInterrupt:
            _flush()
            die_by(signal.SIGINT)
        except BrokenPipeError:
            raise  # click ends quietly when nobody reads stdout any more
        except OSError as error:
            _explain(ctx, error)
            ctx.exit(UpsertCliError.exit_code)


def _explain(ctx: click.Context, error: Exception) -> None:
    terminal = _terminal(ctx)
    if terminal.verbose:
        for line in "".join(traceback.format_exception(error)).splitlines():
            terminal.show(line)
    terminal.fail(str(error))


def _terminal(ctx: click.Context) -> Terminal:
    session = ctx.find_root().obj
    return session.terminal if isinstance(session, Session) else Terminal()


def _flush() -> None:
    """Writes out what is still buffered, since dying by a signal does not."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()


@click.group(
    cls=Root,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "auto_envvar_prefix": "UPSERT_CLI",
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="upsert-cli")
def cli() -> None:
    """Load items into a Chroma vector collection in batches, as tasks that lose no row.

    \b
    Exit codes: 0 done, 1 failed, 2 usage, 3 done but some items were rejected,
    4 refused and nothing written, 5 canceled, 129/130/143 stopped by a signal.
    """


def _replace_closed_streams() -> None:
    """Puts /dev/null in place of a standard stream that daemons and cron wrappers have closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  # for as long as the process lives


def main() -> None:
    """Runs the command line."""
    telemetry.switch_off()
    _replace_closed_streams()
    end_in_order()
    for stream in (sys.stdout, sys.stderr):
        # A terminal or log that takes no Unicode gets escapes, not a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="upsert-cli")
