"""The command line: the root group, and the one boundary at which errors become messages and exit codes."""

from __future__ import annotations

import importlib
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from upsert_cli import __version__, telemetry
from upsert_cli.cli.streams import flush_streams, reliable_streams, stdout_fault
from upsert_cli.cli.terminal import Terminal
from upsert_cli.errors import Interrupted, TaskNotFound, UpsertCliError
from upsert_cli.limits import limit_reached, raise_file_limit
from upsert_cli.load.stop import EndedBySignal, end_in_order
from upsert_cli.paths import provide_home
from upsert_cli.report.printed_commands import PrintedCommands
from upsert_cli.signals import die_by_signal, end_at_once

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from upsert_cli.cli.options import Invocation


# Where each command is, and what it is for; a module is loaded when its command is asked for, so that neither `list`
# nor `--help` waits for `run`. A test holds the words against the command's own.
COMMANDS = {
    "run": ("upsert_cli.cli.run:run", "Load items into the default collection, as a task."),
    "categories": ("upsert_cli.cli.run:categories", "Work on the categories collection."),
    "info": ("upsert_cli.cli.tasks:info", "Show one task: state, progress, counts, rejected items."),
    "list": ("upsert_cli.cli.tasks:list_tasks", "List the tasks, newest first."),
    "restart": ("upsert_cli.cli.run:restart", "Set a task back to pending and run it on from its checkpoint."),
    "cancel": ("upsert_cli.cli.tasks:cancel", "Stop a task, also one that another process runs."),
    "work": ("upsert_cli.cli.work:work", "Run the tasks that `run --enqueue` left, the oldest first."),
    "verify": (
        "upsert_cli.cli.verify:verify",
        "Read every record back with its vector, and compare it with a task's sources.",
    ),
    "collections": (
        "upsert_cli.cli.collections:collections",
        "List the collections of a target, and what was loaded last into each.",
    ),
    "query": ("upsert_cli.cli.query:query", "Find the records that are nearest to a text."),
    "report": ("upsert_cli.cli.report:report", "Write a page about one task, for a CI artifact or a mail."),
    "models": ("upsert_cli.cli.models:models", "See, fetch and check embedding models."),
    "prune": ("upsert_cli.cli.prune:prune", "Remove old tasks from the journal; no collection is touched."),
    "config": ("upsert_cli.cli.config:config", "See the settings, and where they come from."),
    "journal": ("upsert_cli.cli.journal:journal", "Look after the journal of tasks."),
    "completion": (
        "upsert_cli.cli.completion:completion",
        "Print a script that completes commands, options, task ids and models in a shell.",
    ),
}

LOOKING_BACK = ("info", "report", "verify")  # what a CI step runs after a load, whether or not that made a task


class Root(click.Group):
    """A group whose commands may raise what they like: it ends here."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the commands, in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Loads a command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes what each command is for, and loads none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help) for name, (_, short_help) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offers the commands, and loads none."""
        from click.shell_completion import CompletionItem

        fitting = [name for name in COMMANDS if name.startswith(incomplete)]
        own_options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=COMMANDS[name][1]) for name in fitting] + own_options

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the group's own options."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            _correct(ctx, error)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command and turns an error into its message and its exit code."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            _correct(ctx, error)
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click ends quietly when nobody reads stdout any more
        except Interrupted as error:
            _terminal(ctx).fail(str(error))
            flush_streams()
            die_by_signal(error.signal_number)
        except EndedBySignal as error:
            if error.number != signal.SIGINT:  # whoever pressed Ctrl-C knows
                _terminal(ctx).fail(str(error))
            flush_streams()
            die_by_signal(error.number)
        except KeyboardInterrupt:  # raised by a library that handles the signal itself
            flush_streams()
            die_by_signal(signal.SIGINT)
        except Exception as error:  # noqa: BLE001  # the boundary
            known: UpsertCliError | None = stdout_fault() if isinstance(error, OSError) else None
            known = known or limit_reached(error, by_words=isinstance(error, ImportError))
            # Anything else is a bug; its traceback may quote what is in a file.
            _explain(ctx, known or error, trace=known is None and not isinstance(error, UpsertCliError | OSError))
            ctx.exit(getattr(known or error, "exit_code", UpsertCliError.exit_code))


def _correct(ctx: click.Context, error: click.UsageError) -> NoReturn:
    """Says in one line what is wrong with what was typed."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
    else:
        command = (error.ctx or ctx).command_path
        _terminal(ctx).fail(f"{error.format_message().rstrip('.')} (`{command} --help` says what can be given)")
    ctx.exit(error.exit_code)


def _explain(ctx: click.Context, error: Exception, *, trace: bool) -> None:
    terminal = _terminal(ctx)
    if trace or terminal.verbose:
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            terminal.show(line)
    bug = f"this is a bug, please report it ({type(error).__name__}: {error})" if trace else str(error)
    # A task that was never made has an annotation already, of the step that was to make it.
    is_second = isinstance(error, TaskNotFound) and ctx.invoked_subcommand in LOOKING_BACK
    terminal.fail(bug, annotated=not is_second)


def _terminal(ctx: click.Context) -> Terminal:
    session: Invocation | None = ctx.find_root().obj
    return Terminal(printed=PrintedCommands.typed_in(ctx)) if session is None else session.terminal


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


def main() -> None:
    """Run the command line, and exit."""
    telemetry.switch_off()
    provide_home()
    raise_file_limit()
    try:
        end_in_order()
        with reliable_streams():
            try:
                cli(prog_name="upsert-cli")
            except OSError as error:  # of --help and --version, which print before there is a command
                Terminal().fail(str(stdout_fault() or error))
                sys.exit(UpsertCliError.exit_code)
    except EndedBySignal as error:  # outside of any command
        die_by_signal(error.number)
    finally:
        end_at_once()  # all is done but for the interpreter's own end
