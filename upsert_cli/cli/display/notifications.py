"""Notifies GitHub Actions and Prometheus of the end of a load.

A failed notification is reported but never changes the exit code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from upsert_cli.cli.display.terminal import Terminal
from upsert_cli.errors import UpsertCliError
from upsert_cli.report.github import append_summary
from upsert_cli.report.prometheus import write_metrics

if TYPE_CHECKING:
    from upsert_cli.journal.task import Task
    from upsert_cli.load.request import LoadRequest
    from upsert_cli.report.printed_commands import NextStep


def add_to_step_summary(
    terminal: Terminal,
    task: Task | None,
    steps: Sequence[NextStep],
    *,
    exit_code: int,
    seconds: float,
    detail: str | None,
) -> None:
    """Add the end of a load to the summary of a step of GitHub Actions; see `append_summary`."""
    try:
        append_summary(task, exit_code=exit_code, seconds=seconds, detail=detail, steps=steps, printed=terminal.printed)
    except OSError as error:
        terminal.warning(f"the summary of the step cannot be written: {error}")


def add_to_metrics(
    terminal: Terminal, file: Path | None, ended: Task | LoadRequest | None, *, exit_code: int, seconds: float
) -> None:
    """Write the end of a load into a file for Prometheus, if there is one; see `write_metrics`."""
    if file is None or ended is None:
        return
    try:
        write_metrics(file, ended, exit_code=exit_code, seconds=seconds)
    except UpsertCliError as error:  # shown even with -q, or nobody would ever notice
        terminal.error(str(error))
