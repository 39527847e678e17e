"""A run while it goes on, and its end: for the user, programs that read events, GitHub Actions and Prometheus."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upsert_cli.cli.display import load_summary
from upsert_cli.cli.display.next_steps import next_steps, query_others
from upsert_cli.cli.display.progress import open_display
from upsert_cli.cli.display.session import Session, total
from upsert_cli.cli.display.terminal import restore_cursor
from upsert_cli.context import Progress
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.limits import limit_reached
from upsert_cli.report.github import append_summary
from upsert_cli.report.printed_commands import NextStep
from upsert_cli.report.prometheus import write_metrics
from upsert_cli.signals import EndedBySignal, exit_code_of

if TYPE_CHECKING:
    from upsert_cli.load.dry_run import DryRunResult
    from upsert_cli.load.request import LoadRequest, OpenedTask
    from upsert_cli.verify.verification import Verification

EVENT_SECONDS = 1.0  # seconds between two progress events of `--json`


class RunObserver:
    """The observer of one run, which shows its progress to the user and prints events for programs."""

    def __init__(self, session: Session) -> None:
        self.info = session.info
        self.warning = session.warning
        self.task: Task | None = None
        """The task at the start of the attempt."""

        self.progress = Progress(total=None)
        """The progress when it was last shown."""

        self._terminal = session.terminal
        self._events = session.events
        self._display = open_display(session.terminal, prints_data=session.events.wanted)
        self._began = time.monotonic()
        self._next_event = 0.0

    @property
    def seconds(self) -> float:
        """The seconds since the run began."""
        return time.monotonic() - self._began

    def started(self, task: Task) -> None:
        """Show that an attempt begins."""
        self.task = task
        self._events.task(task)
        load_summary.show_start(self._terminal, task)

    def progressed(self, progress: Progress) -> None:
        """Show the progress, and print an event now and then."""
        self.progress = progress
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

    def close(self) -> None:
        """Leave the last state of the progress on the screen, and restore the terminal."""
        self._display.close()


class RunReport:
    """The report of one run; on exit, it reports the error that ended the run, if any."""

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
        self.observer = RunObserver(session)
        self._session = session
        self._terminal = session.terminal
        self._events = session.events
        self._metrics = metrics
        self._request = request
        self._brief = one_of_many or session.terminal.quiet

    def __enter__(self) -> RunReport:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self.observer.close()
        if isinstance(error, Exception | EndedBySignal):
            error = limit_reached(error) or error
            self.failed(error, exit_code=exit_code_of(error))

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

    def finished(self, task: Task, *, exit_code: int) -> None:
        """Report the end of a task, where its data is and how to query it."""
        steps = self._end(task, exit_code=exit_code)
        if self._is_wanted(exit_code):
            load_summary.show_end(self._terminal, task, steps, exit_code=exit_code)
            if task.status is TaskStatus.DONE and not self._brief:
                queries = [step for step in steps if step.is_query] or query_others(self._session.journal, task)
                load_summary.show_target(self._terminal, task, queries)

    def _queued(self, task: Task) -> None:
        """Report that a task waits for a worker; scripts read its id from stdout."""
        self.observer.close()
        self._events.task(task)
        self._end(task, exit_code=0)
        if not self._events.wanted and not self._terminal.quiet:
            self._session.print_text(task.id)
        load_summary.show_pending(self._terminal, task)

    def failed(self, error: Exception | EndedBySignal, *, exit_code: int) -> None:
        """Report the work done before an error; the error boundary shows the error itself."""
        self.observer.close()
        task = self._task_now()
        self._events.error(str(error), exit_code=exit_code)
        steps = self._end(task, exit_code=exit_code, detail=str(error))
        if task is not None:
            load_summary.show_failure(self._terminal, task, steps, exit_code=exit_code)

    def dry_run_finished(self, outcome: DryRunResult) -> None:
        """Report the outcome of a dry run."""
        self.observer.close()
        self.observer.rejected(outcome.rejects)
        if outcome.broken is not None:
            self._events.error(str(outcome.broken), exit_code=outcome.exit_code)
        ending = {"exit_code": outcome.exit_code, "seconds": total(self.observer.seconds)}
        self._events.emit("summary", ending | outcome.as_json())
        if self._is_wanted(outcome.exit_code):
            load_summary.show_dry_run(self._terminal, outcome)

    def verified(self, outcome: Verification) -> None:
        """Report the result of reading everything back."""
        self.observer.close()
        self._events.emit("verification", outcome.as_json())
        load_summary.show_verification(self._terminal, outcome, examples=True)

    def _end(self, task: Task | None, *, exit_code: int, detail: str | None = None) -> list[NextStep]:
        """Print the last event, notify others, and return what to do next.

        Args:
            task: The task at its end, if it was created.
            exit_code: The exit code of this process.
            detail: Why the load failed, or, with exit code 0, why nothing was done.
        """
        self.observer.close()
        steps = [] if task is None else self._next_steps(task, detail or "")
        outcome: dict[str, Any] = {"exit_code": exit_code, "seconds": self.observer.seconds}
        self._events.summary(task, **outcome, detail=detail)
        # A failed notification is reported but never changes the exit code.
        try:
            append_summary(task, **outcome, detail=detail, steps=steps, printed=self._terminal.printed)
        except OSError as error:
            self._terminal.warning(f"the summary of the step cannot be written: {error}")
        is_queued = task is not None and not task.status.is_final
        if exit_code != 0 or (detail is None and not is_queued):
            self._write_metrics(task or self._request, outcome)
        return steps

    def _write_metrics(self, ended: Task | LoadRequest | None, outcome: dict[str, Any]) -> None:
        if self._metrics is None or ended is None:
            return
        try:
            write_metrics(self._metrics, ended, **outcome)
        except UpsertCliError as error:  # shown even with -q, or nobody would ever notice
            self._terminal.error(str(error))

    def _next_steps(self, task: Task, detail: str) -> list[NextStep]:
        """Return the next steps, without commands that an error names itself."""
        progress = self.observer.progress
        steps = next_steps(task, example=progress.example, names_model=progress.is_model_unnamed)
        return [step for step in steps if step.command not in detail]

    def _task_now(self) -> Task | None:
        """Return the task of the run in its present state, or None; a damaged journal must not hide the first error."""
        try:
            return None if self.observer.task is None else self._session.journal.find(self.observer.task.id)
        except UpsertCliError:
            return None

    def _is_wanted(self, exit_code: int) -> bool:
        """Tell whether the user wants a report; with -q only after a failure or rejects."""
        return not self._terminal.quiet or exit_code != 0
