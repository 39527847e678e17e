"""The events of `--json`: one object a line on stdout, the last one a summary. `upsert_cli/schema` describes them."""

from __future__ import annotations

from typing import Any

import click

from upsert_cli.cli.terminal import Terminal
from upsert_cli.cli.text import safe_json
from upsert_cli.journal.tasks import Task
from upsert_cli.redaction import without_secrets


class Events:
    """Prints events, if they are wanted."""

    def __init__(self, terminal: Terminal, *, wanted: bool) -> None:
        """Prints nothing yet."""
        self._terminal = terminal
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

    def summary(self, task: Task | None, *, exit_code: int, seconds: float, detail: str | None) -> None:
        """Prints the last event; without a task, `detail` says why there is none."""
        fields = task.as_json(running=False) if task is not None else _no_task(detail)
        self.emit("summary", {"exit_code": exit_code} | fields | {"seconds": fields.get("seconds") or took(seconds)})


def report_failure(message: str, exit_code: int) -> None:
    """Prints the events of a command that failed before there was anything to run."""
    message = without_secrets(message)
    click.echo(safe_json({"type": "error", "message": message, "exit_code": exit_code}))
    click.echo(safe_json({"type": "summary", "exit_code": exit_code, "seconds": took(0.0)} | _no_task(message)))


def took(seconds: float) -> dict[str, float]:
    """Returns the seconds of something that has no stages, in the shape of those that have."""
    return {"total": round(seconds, 3)}


def _no_task(detail: str | None) -> dict[str, Any]:
    return {"id": None, "status": None, "detail": detail}
