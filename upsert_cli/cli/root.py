"""The root of the command line: the commands, each loaded when it is used, and the start of the program."""

from __future__ import annotations

import gc
import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

from upsert_cli import __version__
from upsert_cli.cli.display.streams import reliable_streams, stdout_fault
from upsert_cli.cli.display.terminal import Terminal
from upsert_cli.cli.error_boundary import end_with, show_wrong_usage
from upsert_cli.cli.options.command import Group, Sections
from upsert_cli.errors import UpsertCliError
from upsert_cli.limits import raise_file_limit
from upsert_cli.packages import configure_libraries
from upsert_cli.paths import provide_home
from upsert_cli.signals import EndedBySignal, die_by_signal, end_at_once, end_in_order, exit_beside_stages

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SECTIONS = {
    "Load": {
        "run": ("run:run", "Load items into the default collection, as a task."),
        "preview": ("preview:preview", "Show the first records exactly as `run` would store them."),
        "categories": ("run:categories", "Load items into the categories collection."),
        "restart": ("restart:restart", "Set a task back to pending and continue it at its checkpoint."),
        "cancel": ("cancel:cancel", "Stop a task, even if another process runs it."),
        "work": ("work:work", "Run the tasks that `run --enqueue` created, oldest first."),
    },
    "Look": {
        "list": ("list:list_tasks", "List the tasks, newest first."),
        "info": ("info:info", "Show one task: state, progress, counts, rejected items."),
        "query": ("query:query", "Find the records that are nearest to a text or a vector."),
        "collections": ("collections:collections", "List, rename and delete the collections of a target."),
        "export": ("export:export", "Write a collection to a file that `run` reads back."),
        "report": ("report:report", "Write a page about one task, for a CI artifact or an email."),
    },
    "Check": {
        "verify": ("verify:verify", "Read every record back and compare it with the sources."),
        "journal": ("journal:journal", "Check and repair the journal of tasks."),
        "models": ("models:models", "List, fetch and check embedding models."),
    },
    "Maintain": {
        "prune": ("prune:prune", "Remove old tasks from the journal, but no records."),
        "config": ("config:config", "Show the settings and where they come from."),
        "help": ("help:show_help", "Show a page of the guide, or the help of a command."),
        "completion": ("completion:completion", "Print a script that completes commands and values."),
    },
}
"""Module, command and help of each command under its heading, so that neither `list` nor `--help` loads the others.

A test compares the help with the command's own.
"""

COMMANDS = {name: command for commands in SECTIONS.values() for name, command in commands.items()}
"""The same without headings."""

# Rows form no cycles, so Python finds no garbage among them. With its own 700 objects, the search takes a tenth of the
# CPU of an unchanged row.
GARBAGE_OBJECTS = 20_000  # objects made between two searches for garbage


class Root(Group):
    """The root group, which loads a command when it is used and handles every error."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, the most used first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        if cmd_name not in COMMANDS:
            return None
        place, _ = COMMANDS[cmd_name]
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(f"upsert_cli.cli.{module}"), name)
        _search_less_garbage()
        return command

    def command_sections(self, ctx: click.Context) -> Sections:
        """Return the commands under their headings, without loading one."""
        return {
            heading: [(name, short_help) for name, (_, short_help) in commands.items()]
            for heading, commands in SECTIONS.items()
        }

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the commands without loading one."""
        from click.shell_completion import CompletionItem

        commands = [
            CompletionItem(name, help=short_help)
            for name, (_, short_help) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return commands + click.Command.shell_complete(self, ctx, incomplete)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options of the group itself, before the error boundary is entered."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            show_wrong_usage(error, ctx)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; the error boundary handles every error."""
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click ends quietly if nobody reads stdout any more
        except (Exception, EndedBySignal, KeyboardInterrupt) as error:  # noqa: BLE001  # the boundary
            end_with(error, ctx)


def _search_less_garbage() -> None:
    """Let Python search for garbage, but rarely, and never among the imported modules, which live to the end."""
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
    gc.enable()


@click.group(
    cls=Root,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "auto_envvar_prefix": "UPSERT_CLI",
        "max_content_width": 100,
    },
    options_metavar="COMMAND [OPTIONS]",
    subcommand_metavar="[ARGUMENTS]",
    epilog="""\b
    `upsert-cli help` lists the pages of the guide.
    Options come after the command, as in `list --journal DIR`.
    Exit codes: 0 done, 1 failed, 2 usage, 3 done but some items were rejected,
    4 refused and nothing written, 5 canceled, 129/130/143 stopped by a signal.
    """,
)
@click.version_option(__version__, "-V", "--version", prog_name="upsert-cli")
def cli() -> None:
    """Load items into a Chroma collection, as tasks that lose no row."""


def main() -> None:
    """Run the command line, and exit."""
    configure_libraries()
    provide_home()
    raise_file_limit()
    try:
        end_in_order()
        with reliable_streams():
            try:
                cli(prog_name="upsert-cli")
            except OSError as error:  # of --help and --version, which print before any command starts
                Terminal().error(str(stdout_fault() or error))
                sys.exit(UpsertCliError.exit_code)
    except EndedBySignal as error:  # outside of any command
        die_by_signal(error.number)
    except SystemExit as end:
        exit_beside_stages(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
    finally:
        end_at_once()  # nothing is left to do but the interpreter's own shutdown
