"""The events of `--json`: one object a line on stdout, the last one a summary. `upsert_cli/schema` describes them."""

from __future__ import annotations

from typing import Any

import click

from upsert_cli.cli.terminal import Terminal
from upsert_cli.journal.task import Task
from upsert_cli.redaction import in_message
from upsert_cli.report.printed_commands import PrintedCommands
from upsert_cli.text import safe_json


class Events:
    """Prints events, if they are wanted."""

    def __init__(self, terminal: Terminal, *, wanted: bool) -> None:
        """Prints nothing yet."""
        self._terminal = terminal
        self._printed = terminal.printed
        self.wanted = wanted

    def emit(self, kind: str, fields: dict[str, Any]) -> None:
        """Prints one event."""
        if not self.wanted:
            return
        try:
            click.echo(safe_json({"type": kind} | fields))
        except OSError as error:
            # Nobody reads any more, or the disk is full: the load goes on, and its exit code still tells the truth.
            self.wanted = False
            self._terminal.warn(f"the JSON events cannot be written any more ({error})")

    def task(self, task: Task, *, running: bool) -> None:
        """Print the event that a task begins or waits."""
        self.emit("task", self._printed.in_task(task).as_json(running=running))

    def error(self, message: str, *, exit_code: int) -> None:
        """Print the event of what ended a load."""
        self.emit("error", {"message": self._printed.complete(message), "exit_code": exit_code})

    def summary(self, task: Task | None, *, exit_code: int, seconds: float, detail: str | None) -> None:
        """Prints the last event; without a task, `detail` says why there is none."""
        if task is None:
            fields = _no_task(None if detail is None else self._printed.complete(detail))
        else:
            fields = self._printed.in_task(task).as_json(running=False)
        self.emit("summary", {"exit_code": exit_code} | fields | {"seconds": fields.get("seconds") or took(seconds)})


def report_failure(message: str, exit_code: int, *, printed: PrintedCommands) -> None:
    """Prints the events of a command that failed before there was anything to run."""
    message = printed.complete(in_message(message))
    click.echo(safe_json({"type": "error", "message": message, "exit_code": exit_code}))
    click.echo(safe_json({"type": "summary", "exit_code": exit_code, "seconds": took(0.0)} | _no_task(message)))


def took(seconds: float) -> dict[str, float]:
    """Returns the seconds of something that has no stages, in the shape of those that have."""
    return {"total": round(seconds, 3)}


def _no_task(detail: str | None) -> dict[str, Any]:
    return {"id": None, "status": None, "detail": detail}
