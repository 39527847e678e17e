"""The report of a run: its progress, events and messages, and at the end a summary and notifications."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from upsert_cli.cli.display import load_summary
from upsert_cli.cli.display.next_steps import next_steps
from upsert_cli.cli.display.progress import open_display, restore_cursor
from upsert_cli.cli.display.session import Session, total
from upsert_cli.cli.display.task_text import sources_in_short
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.limits import limit_reached
from upsert_cli.report.github import append_summary
from upsert_cli.report.printed_commands import NextStep
from upsert_cli.report.prometheus import write_metrics
from upsert_cli.signals import EndedBySignal, exit_code_of

if TYPE_CHECKING:
    from upsert_cli.context import Progress
    from upsert_cli.load.dry_run import DryRunResult
    from upsert_cli.load.request import LoadRequest, OpenedTask
    from upsert_cli.verify.verification import Verification

EVENT_SECONDS = 1.0  # seconds between two progress events of `--json`


class RunReport:
    """The observer of one run, which reports it to the user, to programs, to GitHub Actions and to Prometheus."""

    def __init__(
        self,
        session: Session,
        *,
        metrics: Path | None = None,
        request: LoadRequest | None = None,
        one_of_many: bool = False,
    ) -> None:
        """Prepare a report.

        Args:
            session: The journal, the terminal and the events.
            metrics: The file for Prometheus, if it is wanted.
            request: Names the target if the load ends without a task.
            one_of_many: Whether a worker runs the task, so that the report is brief.
        """
        self.info = session.info
        self.warning = session.warning
        self._journal = session.journal
        self._terminal = session.terminal
        self._events = session.events
        self._metrics = metrics
        self._request = request
        self._brief = one_of_many or session.terminal.quiet
        self._display = open_display(session.terminal, json=session.events.wanted)
        self._task: Task | None = None
        self._example = ""
        self._names_model = False
        self._began = time.monotonic()
        self._next_event = 0.0

    def __enter__(self) -> RunReport:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._close_display()
        if isinstance(error, Exception | EndedBySignal):
            error = limit_reached(error) or error
            self.failed(error, exit_code=exit_code_of(error))

    # -- the observer of a task -----------------------------------------------------------------------------------

    def started(self, task: Task) -> None:
        """Report that an attempt begins."""
        self._task = task
        self._events.task(task)
        again = f", attempt {task.attempt}" if task.attempt > 1 else ""
        self.info(f"task {task.id}{again}: {sources_in_short(task)} -> collection {task.collection} in {task.chroma}")

    def progressed(self, progress: Progress) -> None:
        """Show the progress, and print an event now and then."""
        self._example, self._names_model = progress.example, progress.is_model_unnamed
        self._display.update(progress)
        if self._events.wanted and time.monotonic() >= self._next_event:
            self._next_event = time.monotonic() + EVENT_SECONDS
            rows = {"rows": progress.committed, "total": progress.total}
            done = {"read": progress.read, "embedded": progress.embedded, "counts": progress.counts.as_json()}
            self._events.emit("progress", rows | done)

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Print an event for each reject."""
        for record in records:
            self._events.emit("reject", record)

    def killed(self) -> None:
        """Leave the terminal usable, since the process ends without clean-up."""
        restore_cursor()

    # -- the end --------------------------------------------------------------------------------------------------

    def finished(self, task: Task, *, exit_code: int) -> None:
        """Report the end of a task, where its data is and how to query it."""
        steps = self._end(task, exit_code=exit_code)
        if self._is_wanted(exit_code):
            load_summary.show_end(self._terminal, task, steps, exit_code=exit_code)
            if task.status is TaskStatus.DONE and not self._brief:
                load_summary.show_target(self._terminal, self._journal, task, steps)

    def dry_run_finished(self, outcome: DryRunResult) -> None:
        """Report the outcome of a dry run."""
        self._close_display()
        self.rejected(outcome.rejects)
        if outcome.broken is not None:
            self._events.error(str(outcome.broken), exit_code=outcome.exit_code)
        ending = {"exit_code": outcome.exit_code, "seconds": total(self._seconds())}
        self._events.emit("summary", ending | outcome.as_json())
        if self._is_wanted(outcome.exit_code):
            load_summary.show_dry_run(self._terminal, outcome)

    def verified(self, outcome: Verification) -> None:
        """Report the result of reading everything back."""
        self._close_display()
        self._events.emit("verification", outcome.as_json())
        load_summary.show_verification(self._terminal, outcome, examples=True)

    def ended(self, opened: OpenedTask, *, exit_code: int) -> None:
        """Report the end of a task, that it waits for a worker, or why it needed no work."""
        task = opened.task
        if task is not None and opened.queued:
            self._queued(task)
        elif task is not None and opened.ran:
            self.finished(task, exit_code=exit_code)
        else:
            steps = self._end(task, exit_code=exit_code, detail=opened.skipped)
            if not self._is_wanted(exit_code):
                return
            if opened.skipped is not None:
                self._terminal.print(f"nothing was done: {opened.skipped}")
            elif task is not None:
                load_summary.show_earlier_end(self._terminal, task, steps, exit_code=exit_code)

    def _queued(self, task: Task) -> None:
        """Report that a task waits for a worker; scripts read its id from stdout."""
        self._close_display()
        self._events.task(task)
        self._end(task, exit_code=0)
        if not self._events.wanted and not self._terminal.quiet:
            click.echo(task.id)
        self.info(f"task {task.id} is pending: {sources_in_short(task)}; `upsert-cli work` runs it")

    def failed(self, error: Exception | EndedBySignal, *, exit_code: int) -> None:
        """Report the work done before an error; the error boundary shows the error itself."""
        self._close_display()
        task = None
        with suppress(UpsertCliError):  # an unreadable journal must not hide the first error
            task = self._journal.find(self._task.id) if self._task is not None else None
        self._events.error(str(error), exit_code=exit_code)
        steps = self._end(task, exit_code=exit_code, detail=str(error))
        if task is not None:
            load_summary.show_failure(self._terminal, task, steps, exit_code=exit_code)

    def _end(self, task: Task | None, *, exit_code: int, detail: str | None = None) -> list[NextStep]:
        """Print the last event, notify others, and return what to do next.

        Args:
            task: The task at its end, if it was created.
            exit_code: The exit code of this process.
            detail: Why the load failed, or, with exit code 0, why nothing was done.
        """
        self._close_display()
        steps = [] if task is None else next_steps(task, example=self._example, names_model=self._names_model)
        steps = [step for step in steps if step.command not in (detail or "")]  # an error may know better
        seconds = self._seconds()
        self._events.summary(task, exit_code=exit_code, seconds=seconds, detail=detail)
        # A failed notification is reported but never changes the exit code.
        try:
            outcome: dict[str, Any] = {"exit_code": exit_code, "seconds": seconds, "detail": detail}
            append_summary(task, **outcome, steps=steps, printed=self._terminal.printed)
        except OSError as error:
            self.warning(f"the summary of the step cannot be written: {error}")
        is_queued = task is not None and not task.status.is_final
        ended = task or self._request
        if self._metrics is None or ended is None or (exit_code == 0 and (detail is not None or is_queued)):
            return steps  # no load has ended
        try:
            write_metrics(self._metrics, ended, exit_code=exit_code, seconds=seconds)
        except UpsertCliError as error:  # shown even with -q, or nobody would ever notice
            self._terminal.error(str(error))
        return steps

    def _is_wanted(self, exit_code: int) -> bool:
        """Whether the user wants a report; with -q only if not all is well."""
        return not self._terminal.quiet or exit_code != 0

    def _close_display(self) -> None:
        with suppress(OSError):  # the terminal is gone, which must not change how the work ends
            self._display.close()

    def _seconds(self) -> float:
        return time.monotonic() - self._began
