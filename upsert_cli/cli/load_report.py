"""The report of a run: progress, events and messages, and at the end its outcome."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from upsert_cli.cli.display import open_display, restore_cursor
from upsert_cli.cli.events import total
from upsert_cli.cli.notifications import Notifications
from upsert_cli.cli.options import Invocation
from upsert_cli.cli.task_text import (
    command_for_corrected,
    described_load,
    query_command,
    sources_in_short,
)
from upsert_cli.errors import SOME_REJECTED, UpsertCliError
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.limits import limit_reached
from upsert_cli.load.stop import EndedBySignal, exit_code_of
from upsert_cli.redaction import in_message
from upsert_cli.report.github import ANNOTATED_REJECTS, Level
from upsert_cli.text import converted_line, counts_line, seconds_line, time_taken

if TYPE_CHECKING:
    from upsert_cli.context import Progress
    from upsert_cli.counts import Counts
    from upsert_cli.load.dry_run import DryRunResult
    from upsert_cli.verify.verification import Verification

REPORTED_REJECTS = 10  # rejects in a report; the rejects file has all of them
EVENT_SECONDS = 1.0  # seconds between two progress events of `--json`

_TRUNCATED = (
    "  truncated texts are longer than the model reads: only their beginning is searchable; --split stores all of it"
)


class RunReport:
    """The observer of one run, which reports it to the user, to programs and to those to be notified."""

    def __init__(self, session: Invocation, notifications: Notifications, *, one_of_many: bool = False) -> None:
        """Prepare a report.

        Args:
            session: The journal, the terminal and the events.
            notifications: Sent when the run ends.
            one_of_many: Whether a worker runs the task, so that the report is brief.
        """
        self._journal = session.journal
        self._terminal = session.terminal
        self._events = session.events
        self._notifications = notifications
        self._one_of_many = one_of_many
        self._display = open_display(session.terminal, json=session.events.wanted)
        self._task: Task | None = None
        self._began = time.monotonic()
        self._next_event = 0.0

    def __enter__(self) -> RunReport:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._close_display()
        if isinstance(error, Exception | EndedBySignal) and not isinstance(error, click.exceptions.Exit):
            error = limit_reached(error) or error
            self.failed(error, exit_code=exit_code_of(error))

    # -- the observer of a task -----------------------------------------------------------------------------------

    def started(self, task: Task) -> None:
        """Report that an attempt begins."""
        self._task = task
        self._events.task(task, running=True)
        again = f", attempt {task.attempt}" if task.attempt > 1 else ""
        self._terminal.info(
            f"task {task.id}{again}: {sources_in_short(task)} -> collection {task.collection} in {task.chroma}"
        )

    def progressed(self, progress: Progress) -> None:
        """Show the progress, and print an event now and then."""
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

    def info(self, message: str) -> None:
        """Show a message."""
        self._terminal.info(message)

    def warning(self, message: str) -> None:
        """Show a warning."""
        self._terminal.warning(message)

    def killed(self) -> None:
        """Leave the terminal usable, since the process ends without clean-up."""
        restore_cursor()

    # -- the end --------------------------------------------------------------------------------------------------

    def finished(self, task: Task, *, exit_code: int) -> None:
        """Report the end of a task, where its data is and how to query it."""
        if not self._end(task, exit_code=exit_code):
            return
        level = _level(exit_code)
        name = f"task {task.id} " if self._terminal.quiet else ""  # otherwise the first line has named it
        took = time_taken(task.load_seconds, task.load_attempts)
        line = f"{name}{task.status}: {counts_line(task.counts.as_json())} in {took}"
        self._show_counts(line, task.counts, level=level)
        self._describe_if_quiet(task, exit_code=exit_code)
        if self._terminal.verbose:
            self._terminal.print(f"seconds busy: {seconds_line(task.seconds)}")
        if task.converted.values:
            self._terminal.print(f"  {converted_line(task.converted.by_field)}")
        if task.counts.truncated:
            self._terminal.print(_TRUNCATED)
        self._show_rejects_and_remedy(task, level=level)
        if task.status is TaskStatus.DONE and not self._terminal.quiet and not self._one_of_many:
            self._show_target(task)

    def dry_run_finished(self, outcome: DryRunResult, *, exit_code: int) -> None:
        """Report what a load would do."""
        self._close_display()
        for record in outcome.rejects:
            self._events.emit("reject", record)
        fields = {"dry_run": True, "compared": outcome.compared, "counts": outcome.counts.as_json()}
        fields |= {"to_delete": list(outcome.to_delete)}
        if outcome.broken is not None:
            fields["detail"] = in_message(str(outcome.broken))
            self._events.emit("error", {"message": fields["detail"], "exit_code": exit_code})
        estimate = {"tokens": outcome.tokens, "embed_seconds": outcome.embed_seconds}
        self._events.emit("summary", {"exit_code": exit_code, "seconds": total(self._seconds())} | fields | estimate)
        if not self._terminal.quiet or exit_code:
            self._show_dry_run(outcome, level=_level(exit_code))

    def verified(self, outcome: Verification) -> None:
        """Report the result of reading everything back."""
        self._close_display()
        self._events.emit("verification", outcome.as_json())
        if outcome.exit_code == 0:
            self._terminal.info(outcome.summary())
            return
        self._terminal.error(outcome.summary())
        for kind, identifier, reason in outcome.found.examples():
            self._terminal.print(f"  {kind}: {identifier}: {reason}")
        self._terminal.print(f"  to repair it: {self._terminal.printed.command(outcome.repair_command())}")

    def nothing_to_do(self, task: Task | None, *, exit_code: int, skipped: str | None) -> None:
        """Report that a task needed no work, or why it was skipped."""
        if not self._end(task, exit_code=exit_code, detail=skipped):
            return
        if skipped is not None:
            self._terminal.print(f"nothing was done: {skipped}")
        elif task is not None:
            line = f"task {task.id} is {task.status} already: {counts_line(task.counts.as_json())}"
            self._show_counts(line, task.counts, level=_level(exit_code))
            self._describe_if_quiet(task, exit_code=exit_code)
            self._show_rejects_and_remedy(task, level=_level(exit_code))
            if task.status is TaskStatus.CANCELED:
                command = self._terminal.printed.command(f"upsert-cli restart {task.id}")
                self._terminal.print(f"  to continue it: {command}")

    def queued(self, task: Task) -> None:
        """Report that a task waits for a worker; scripts read its id from stdout."""
        self._close_display()
        self._events.task(task, running=False)
        self._end(task, exit_code=0)
        if not self._events.wanted and not self._terminal.quiet:
            click.echo(task.id)
        self._terminal.info(f"task {task.id} is pending: {sources_in_short(task)}; `upsert-cli work` runs it")

    def failed(self, error: Exception | EndedBySignal, *, exit_code: int) -> None:
        """Report what was done before an error; the error boundary shows the error itself."""
        self._close_display()
        task = None
        with suppress(UpsertCliError):  # an unreadable journal must not hide the first error
            task = self._journal.find(self._task.id) if self._task is not None else None
        self._events.error(str(error), exit_code=exit_code)
        self._end(task, exit_code=exit_code, detail=in_message(str(error)))
        if task is None:
            return
        line = f"task {task.id} {task.status}: {task.rows:,} rows committed, {counts_line(task.counts.as_json())}"
        self._show_counts(line, task.counts, level="error")
        self._describe_if_quiet(task, exit_code=exit_code)
        if task.counts.failed:
            self._show_rejects(task, level="error")
        again = f"upsert-cli restart {task.id}"
        # A restart with the same options would not help after a usage error or a refusal.
        if exit_code == UpsertCliError.exit_code and again not in str(error) and task.status is not TaskStatus.DONE:
            command = self._terminal.printed.command(again)
            self._terminal.print(f"  once the cause is removed, continue with: {command}")

    def _end(self, task: Task | None, *, exit_code: int, detail: str | None = None) -> bool:
        """Print the summary, send the notifications, and return whether the user wants a report."""
        self._close_display()
        outcome: dict[str, Any] = {"exit_code": exit_code, "seconds": self._seconds(), "detail": detail}
        self._events.summary(task, **outcome)
        self._notifications.send(task, **outcome)
        return not self._terminal.quiet or exit_code != 0

    def _close_display(self) -> None:
        with suppress(OSError):  # the terminal is gone, which must not change how the work ends
            self._display.close()

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _describe_if_quiet(self, task: Task, *, exit_code: int) -> None:
        """Show the facts that with -q no earlier line has named."""
        if self._terminal.quiet:
            for name, value in described_load(task, exit_code=exit_code):
                self._terminal.print(f"  {name:<9}  {value}")

    def _show_target(self, task: Task) -> None:
        target = f"collection {task.collection} in {task.chroma}"
        if self._has_records(task):
            self._terminal.print(f"{target}, embedded by {task.model}; to query it:")
            self._terminal.print(f"  {query_command(task, self._terminal.printed)}")
        else:
            self._terminal.print(f"{target} has no records")

    def _has_records(self, task: Task) -> bool:
        counts = task.counts
        if counts.inserted + counts.updated + counts.unchanged:
            return True
        from upsert_cli.verify.collections import collections_at

        with suppress(UpsertCliError):  # the load has ended well, whatever the target answers now
            found = collections_at(self._journal, task.chroma)
            return any(summary.records for summary in found if summary.name == task.collection)
        return False

    def _show_dry_run(self, outcome: DryRunResult, *, level: Level) -> None:
        counts = counts_line(outcome.counts.as_json())
        if outcome.compared:
            line = f"dry run: {counts}; about {outcome.embed_seconds:,.0f} s to embed; nothing was written"
        else:
            line = f"dry run, compared with nothing: {counts}; nothing was written"
        self._show_counts(line, outcome.counts, level=level)
        if outcome.counts.truncated:
            self._terminal.print(_TRUNCATED)
        self._list_rejects(outcome.rejects, level=level)
        if (more := outcome.counts.failed - REPORTED_REJECTS) > 0:
            self._terminal.print(f"  {more:,} more")
        for identifier in outcome.to_delete[:REPORTED_REJECTS]:
            self._terminal.print(f"  to delete: {identifier}")
        if (more := outcome.counts.deleted - REPORTED_REJECTS) > 0:
            self._terminal.print(f"  {more:,} more to delete")
        if outcome.broken is not None:
            self._terminal.error(str(outcome.broken))

    def _show_counts(self, line: str, counts: Counts, *, level: Level) -> None:
        """Show a line with counts, in which the number of rejects stands out."""
        self._terminal.print(line, accent=f"{counts.failed:,} rejected" if counts.failed else "", level=level)

    def _show_rejects_and_remedy(self, task: Task, *, level: Level) -> None:
        if task.counts.failed:
            self._show_rejects(task, level=level)
            self._terminal.print(f"  once they are corrected: {command_for_corrected(task, self._terminal.printed)}")

    def _show_rejects(self, task: Task, *, level: Level) -> None:
        self._list_rejects(task.failed_items, level=level)
        more = task.counts.failed - min(len(task.failed_items), REPORTED_REJECTS)
        also = f"{more:,} more; " if more > 0 else ""
        command = self._terminal.printed.command(f"upsert-cli info {task.id} --failed")
        self._terminal.print(f"  {also}all of them: {command}")

    def _list_rejects(self, records: Sequence[dict[str, Any]], *, level: Level) -> None:
        # GitHub Actions annotates only the first ones, so that the error that ends the step is annotated too.
        for number, record in enumerate(records[:REPORTED_REJECTS]):
            problem = f"{record['failure_stage']}: {record['detail']}"
            annotated = level if number < ANNOTATED_REJECTS else None
            self._terminal.print_row(record["source"], record["row"], problem, level=annotated)


def _level(exit_code: int) -> Level:
    """Return how serious rejects are, given the exit code of their load."""
    return "warning" if exit_code in (0, SOME_REJECTED) else "error"
