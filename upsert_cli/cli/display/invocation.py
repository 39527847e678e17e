"""The surroundings of a command: its outputs and the journal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from upsert_cli.cli.display.events import Events
from upsert_cli.cli.display.terminal import Terminal
from upsert_cli.context import RunContext
from upsert_cli.journal.journal import Journal
from upsert_cli.paths import expanded, no_home

if TYPE_CHECKING:
    from upsert_cli.journal.task import Task


class Invocation:
    """The outputs and the journal that a command works with."""

    def __init__(self, folder: Path | None, terminal: Terminal, events: Events) -> None:
        self.terminal = terminal
        self.events = events
        self._journal = None if folder is None else Journal(expanded(folder).absolute())
        self._shown_warnings: set[str] = set()

    @property
    def journal(self) -> Journal:
        """The journal, for commands that need it.

        Raises:
            UpsertCliError: The user names none and has no home folder.
        """
        if self._journal is None:
            raise no_home("the journal")
        return self._journal

    @property
    def context(self) -> TerminalContext:
        """The surroundings of a run that is not a task."""
        return TerminalContext(self.terminal)

    def task_json(self, task: Task, *, running: bool) -> dict[str, Any]:
        """Return a task as `--json` prints it."""
        return self.terminal.printed.in_task(task).as_json(running=running)

    def show_warnings(self) -> None:
        """Show the damage that the journal has found since the last time."""
        for warning in self._journal.warnings if self._journal is not None else ():
            if warning not in self._shown_warnings:
                self._shown_warnings.add(warning)
                self.terminal.warning(warning)


class TerminalContext(RunContext):
    """A run's context that shows its messages; a signal ends the command itself."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def info(self, message: str) -> None:
        """Show a message."""
        self._terminal.info(message)

    def warning(self, message: str) -> None:
        """Show a warning."""
        self._terminal.warning(message)
