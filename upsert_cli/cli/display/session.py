"""The surroundings of a command: its outputs and the journal.

`upsert_cli/schema` describes the events of `--json`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from upsert_cli.cli.display.streams import require_stdout
from upsert_cli.cli.display.terminal import Terminal
from upsert_cli.context import RunContext
from upsert_cli.journal.journal import Journal
from upsert_cli.paths import no_home
from upsert_cli.text import safe_json

if TYPE_CHECKING:
    from upsert_cli.cli.display.progress import Display
    from upsert_cli.journal.task import Task


class Events:
    """Prints the events of `--json`, if the user wants them: an object per line on stdout, the last one a summary."""

    def __init__(self, terminal: Terminal, *, wanted: bool) -> None:
        self.wanted = wanted
        self.has_summary = False
        self._terminal = terminal
        self._printed = terminal.printed

    def emit(self, kind: str, fields: dict[str, Any]) -> None:
        """Print one event."""
        if not self.wanted:
            return
        self.has_summary = self.has_summary or kind == "summary"
        try:
            click.echo(safe_json({"type": kind} | fields))
        except OSError as error:
            # Nobody reads any more, or the disk is full: the load continues, and its exit code is still true.
            self.wanted = False
            self._terminal.warning(f"the JSON events cannot be written any more ({error})")

    def task(self, task: Task) -> None:
        """Print the event of a task that starts or is queued."""
        self.emit("task", self._printed.in_task(task).as_json())

    def error(self, message: str, *, exit_code: int) -> None:
        """Print the event of the error that ended a command."""
        self.emit("error", {"message": self._printed.message(message), "exit_code": exit_code})

    def summary(self, task: Task | None, *, exit_code: int, seconds: float, detail: str | None) -> None:
        """Print the last event; if there is no task, `detail` says why."""
        if task is None:
            reason = None if detail is None else self._printed.message(detail)
            fields: dict[str, Any] = {"id": None, "status": None, "detail": reason}
        else:
            fields = self._printed.in_task(task).as_json()
        self.emit("summary", {"exit_code": exit_code} | fields | {"seconds": fields.get("seconds") or total(seconds)})


def total(seconds: float) -> dict[str, float]:
    """Return the duration of work without stages, in the form of work with stages."""
    return {"total": round(seconds, 3)}


class Session(RunContext):
    """The outputs and the journal of a command, and the context of its work if that is not a task.

    A signal ends such work by itself, so `check` only shows the progress.
    """

    def __init__(self, journal: Journal | None, terminal: Terminal, events: Events) -> None:
        super().__init__()
        self.terminal = terminal
        self.events = events
        self._journal = journal
        self._display: Display | None = None
        self._shown_warnings: set[str] = set()
        self._began = time.monotonic()

    @property
    def journal(self) -> Journal:
        """The journal, for commands that need it.

        Raises:
            UpsertCliError: The user names none and has no home folder.
        """
        if self._journal is None:
            raise no_home("the journal")
        return self._journal

    def check(self) -> None:
        """Show the progress."""
        if self._display is not None:
            self._display.update(self.progress)

    def info(self, message: str) -> None:
        """Show a message, unless the user only wants failures."""
        self.terminal.info(message)

    def warning(self, message: str) -> None:
        """Show something that the user should know although the work continues."""
        self.terminal.warning(message)

    @property
    def seconds(self) -> float:
        """The seconds since the command began."""
        return time.monotonic() - self._began

    @contextmanager
    def showing_rows(self, *, prints_data: bool) -> Iterator[None]:
        """Show how many rows the work inside has done, without bars over the data that it prints on a terminal."""
        from upsert_cli.cli.display.progress import ROWS_BAR, open_display

        with closing(open_display(self.terminal, bars=ROWS_BAR, prints_data=prints_data)) as self._display:
            yield

    def require_stdout(self) -> None:
        """Check that stdout is open, for a command that prints data unless it is quiet.

        Raises:
            UpsertCliError: Stdout is closed.
        """
        if not self.terminal.quiet:
            require_stdout()

    def print_text(self, text: str) -> None:
        """Print data on stdout unchanged."""
        click.echo(text)

    def print_json(self, value: Any) -> None:
        """Print the outcome of a command on stdout, as JSON on one line."""
        click.echo(safe_json(value))

    def task(self, task_id: str) -> Task:
        """Return a task, given its id, the beginning of it or `latest`, with whether a process runs it."""
        return self.journal.with_runner(self.journal.find(self.journal.resolve(task_id)))

    def task_json(self, task: Task) -> dict[str, Any]:
        """Return a task as `--json` prints it."""
        return self.terminal.printed.in_task(task).as_json()

    def show_warnings(self) -> None:
        """Show the damage that the journal has found since the last time."""
        for warning in self._journal.warnings if self._journal is not None else ():
            if warning not in self._shown_warnings:
                self._shown_warnings.add(warning)
                self.warning(warning)
