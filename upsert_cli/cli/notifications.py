"""Who watches loads from outside: the summary of a step of GitHub Actions, and Prometheus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from upsert_cli.cli.terminal import Terminal
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.task import Task
from upsert_cli.load.request import LoadRequest
from upsert_cli.report.github import append_summary
from upsert_cli.report.prometheus import Ending, write_metrics

SUMMARY_REJECTS = 10  # rejects in the summary of a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Notifications:
    """Those who are told how a load ended; that they cannot be told is said, and changes no exit code."""

    terminal: Terminal
    metrics: Path | None = None
    request: LoadRequest | None = None
    """What the load would have filled, in case that there is no task at its end."""

    def ended(self, task: Task | None, *, exit_code: int, seconds: float, detail: str | None) -> None:
        """Tells them.

        Args:
            task: As it is now; None where there is none.
            exit_code: Of this process.
            seconds: That it took.
            detail: Why it failed, or, with exit code 0, why nothing was done.
        """
        rejects = task.failed_items[:SUMMARY_REJECTS] if task is not None else ()
        try:
            append_summary(
                task,
                exit_code=exit_code,
                seconds=seconds,
                detail=detail,
                rejects=rejects,
                printed=self.terminal.printed,
            )
        except OSError as error:
            self.terminal.warn(f"the summary of the step cannot be written: {error}")
        waits = task is not None and not task.status.is_final
        if exit_code == 0 and (detail is not None or waits):
            return  # no load has ended
        try:
            self._measure(task, exit_code=exit_code, seconds=seconds)
        except UpsertCliError as error:  # said also with -q, or nobody would ever learn of it
            self.terminal.fail(str(error))

    def _measure(self, task: Task | None, *, exit_code: int, seconds: float) -> None:
        if self.metrics is None:
            return
        if task is not None:
            write_metrics(self.metrics, Ending.of_task(task, exit_code=exit_code, seconds=seconds))
        elif self.request is not None:
            target = self.request.collection, str(self.request.chroma)
            write_metrics(self.metrics, Ending.without_task(*target, exit_code=exit_code, seconds=seconds))
