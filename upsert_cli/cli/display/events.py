"""The events of `--json`: one object per line on stdout, the last one a summary. `upsert_cli/schema` describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from upsert_cli.redaction import in_message
from upsert_cli.text import safe_json

if TYPE_CHECKING:
    from upsert_cli.cli.display.terminal import Terminal
    from upsert_cli.journal.task import Task


class Events:
    """Prints events if the user wants them."""

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

    def task(self, task: Task, *, running: bool) -> None:
        """Print the event of a task that starts or is queued."""
        self.emit("task", self._printed.in_task(task).as_json(running=running))

    def error(self, message: str, *, exit_code: int) -> None:
        """Print the event of the error that ended a command."""
        self.emit("error", {"message": self._printed.complete(in_message(message)), "exit_code": exit_code})

    def summary(self, task: Task | None, *, exit_code: int, seconds: float, detail: str | None) -> None:
        """Print the last event; if there is no task, `detail` says why."""
        if task is None:
            reason = None if detail is None else self._printed.complete(in_message(detail))
            fields: dict[str, Any] = {"id": None, "status": None, "detail": reason}
        else:
            fields = self._printed.in_task(task).as_json(running=False)
        self.emit("summary", {"exit_code": exit_code} | fields | {"seconds": fields.get("seconds") or total(seconds)})


def total(seconds: float) -> dict[str, float]:
    """Return the duration of work without stages, in the form of work with stages."""
    return {"total": round(seconds, 3)}
