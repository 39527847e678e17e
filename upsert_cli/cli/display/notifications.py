"""Notifies GitHub Actions and Prometheus how a load ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from upsert_cli.cli.display.terminal import Terminal
from upsert_cli.errors import UpsertCliError
from upsert_cli.report.github import append_summary
from upsert_cli.report.prometheus import write_metrics

if TYPE_CHECKING:
    from upsert_cli.journal.task import Task
    from upsert_cli.load.request import LoadRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifications:
    """The recipients of a load's outcome. A failed notification is reported but never changes the exit code."""

    terminal: Terminal
    metrics: Path | None = None
    request: LoadRequest | None = None
    """The request, which names the target if the load ends without a task."""

    def send(
        self,
        task: Task | None,
        *,
        exit_code: int,
        seconds: float,
        detail: str | None,
        steps: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Send the outcome of a load.

        Args:
            task: The task at its end, if it was created.
            exit_code: The exit code of this process.
            seconds: The duration.
            detail: Why the load failed, or, with exit code 0, why nothing was done.
            steps: What to do next, each with its command.
        """
        try:
            append_summary(
                task,
                exit_code=exit_code,
                seconds=seconds,
                detail=detail,
                steps=steps,
                printed=self.terminal.printed,
            )
        except OSError as error:
            self.terminal.warning(f"the summary of the step cannot be written: {error}")
        is_queued = task is not None and not task.status.is_final
        ended = task or self.request
        if self.metrics is None or ended is None or (exit_code == 0 and (detail is not None or is_queued)):
            return  # no load has ended
        try:
            write_metrics(self.metrics, ended, exit_code=exit_code, seconds=seconds)
        except UpsertCliError as error:  # shown even with -q, or nobody would ever notice
            self.terminal.error(str(error))
