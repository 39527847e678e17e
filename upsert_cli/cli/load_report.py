"""What a run says about itself: events, progress and messages, and at the end how it went."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from upsert_cli.cli.display import open_display, restore_cursor
from upsert_cli.cli.events import Events, took
from upsert_cli.cli.notifications import Notifications
from upsert_cli.cli.task_text import (
    command_for_mended,
    counts_and_time,
    described_load,
    query_command,
    sources_in_short,
)
from upsert_cli.cli.terminal import Terminal
from upsert_cli.context import Progress
from upsert_cli.counts import Counts
from upsert_cli.errors import SOME_REJECTED, UpsertCliError
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.limits import limit_reached
from upsert_cli.load.stop import EndedBySignal, exit_code_of
from upsert_cli.redaction import in_message
from upsert_cli.report.github import ANNOTATED_REJECTS, Level
from upsert_cli.text import counts_line, seconds_line

if TYPE_CHECKING:
    from upsert_cli.load.dry_run import DryRunResult
    from upsert_cli.verify.verification import Verification

REPORTED_REJECTS = 10  # rejects in the report of a failed task; all of them are in the rejects file
EVENT_SECONDS = 1.0  # seconds between two progress events of `--json`

_CUT = "  truncated texts are longer than the model reads: only their beginning is searchable; --split stores all of it"


class RunReport:
    """Observes one run and tells stdout and stderr about it."""

    def __init__(
        self,
        journal: Journal,
        terminal: Terminal,
        *,
        json: bool,
        watchers: Notifications | None = None,
        one_of_many: bool = False,
    ) -> None:
        """Shows nothing before something happens; where a task is one of many, what it says is brief."""
        self._journal = journal
        self._terminal = terminal
        self._events = Events(terminal, wanted=json)
        self._watchers = watchers or Notifications(terminal=terminal)
        self._one_of_many = one_of_many
        self._display = open_display(terminal, json=json)
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
        """The task is being processed from now on."""
        self._task = task
        self._events.task(task, running=True)
        again = f", attempt {task.attempt}" if task.attempt > 1 else ""
        self._terminal.say(
            f"task {task.id}{again}: {sources_in_short(task)} -> collection {task.collection} in {task.chroma}"
        )

    def progressed(self, progress: Progress) -> None:
        """Moves the bars; now and then an event."""
        self._display.update(progress)
        if self._events.wanted and time.monotonic() >= self._next_event:
            self._next_event = time.monotonic() + EVENT_SECONDS
            self._events.emit(
                "progress",
                {
                    "rows": progress.settled,
                    "total": progress.total,
                    "read": progress.read,
                    "embedded": progress.embedded,
                    "counts": progress.counts.as_json(),
                },
            )

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Writes an event for each reject."""
        for record in records:
            self._events.emit("reject", record)

    def info(self, message: str) -> None:
        """Shows what takes long."""
        self._terminal.say(message)

    def warning(self, message: str) -> None:
        """Shows a warning."""
        self._terminal.warn(message)

    def killed(self) -> None:
        """Leaves the terminal usable, since the process ends without any clean-up."""
        restore_cursor()

    # -- the end --------------------------------------------------------------------------------------------------

    def finished(self, task: Task, *, exit_code: int) -> None:
        """Says how the task ended, where the data is and how to query it."""
        self._close_display()
        self._summary(task, exit_code=exit_code)
        if self._terminal.quiet and exit_code == 0:
            return
        level = _level(exit_code)
        before = Counts() if self._task is None else self._task.counts
        name = f"task {task.id} " if self._terminal.quiet else ""  # otherwise it was named at the start
        line = f"{name}{task.status}: {counts_and_time(task, before, self._seconds())}"
        self._show_counts(line, task.counts, level=level)
        self._describe_if_quiet(task, exit_code=exit_code)
        if self._terminal.verbose:
            self._terminal.show(f"seconds busy: {seconds_line(task.seconds)}")
        if task.counts.truncated:
            self._terminal.show(_CUT)
        self._show_rejects_and_remedy(task, level=level)
        if task.status.value == "done" and not self._terminal.quiet and not self._one_of_many:
            self._show_place(task)

    def _show_place(self, task: Task) -> None:
        place = f"collection {task.collection} in {task.chroma}"
        if self._has_records(task):
            self._terminal.show(f"{place}, embedded by {task.model}; to query it:")
            self._terminal.show(f"  {query_command(task, self._terminal.printed)}")
        else:
            self._terminal.show(f"{place} has no records")

    def _has_records(self, task: Task) -> bool:
        counts = task.counts
        if counts.inserted + counts.updated + counts.unchanged:
            return True
        from upsert_cli.verify.collections import collections_at

        with suppress(UpsertCliError):  # the load has ended well, whatever the target answers now
            return any(one.records for one in collections_at(self._journal, task.chroma) if one.name == task.collection)
        return False

    def dry_run_finished(self, outcome: DryRunResult, *, exit_code: int) -> None:
        """Says what a load would do."""
        self._close_display()
        for record in outcome.rejects:
            self._events.emit("reject", record)
        fields = {"dry_run": True, "compared": outcome.compared, "counts": outcome.counts.as_json()}
        fields |= {"to_delete": list(outcome.to_delete)}
        if outcome.broken is not None:
            fields["detail"] = in_message(str(outcome.broken))
            self._events.emit("error", {"message": fields["detail"], "exit_code": exit_code})
        estimate = {"tokens": outcome.tokens, "embed_seconds": outcome.embed_seconds}
        self._events.emit("summary", {"exit_code": exit_code, "seconds": took(self._seconds())} | fields | estimate)
        if self._terminal.quiet and exit_code == 0:
            return
        level = _level(exit_code)
        counts = counts_line(outcome.counts.as_json())
        if outcome.compared:
            line = f"dry run: {counts}; about {outcome.embed_seconds:,.0f} s to embed; nothing was written"
        else:
            line = f"dry run, compared with nothing: {counts}; nothing was written"
        self._show_counts(line, outcome.counts, level=level)
        if outcome.counts.truncated:
            self._terminal.show(_CUT)
        self._list_rejects(outcome.rejects, level=level)
        if (more := outcome.counts.failed - REPORTED_REJECTS) > 0:
            self._terminal.show(f"  {more:,} more")
        for identifier in outcome.to_delete[:REPORTED_REJECTS]:
            self._terminal.show(f"  to delete: {identifier}")
        if (more := outcome.counts.deleted - REPORTED_REJECTS) > 0:
            self._terminal.show(f"  {more:,} more to delete")
        if outcome.broken is not None:
            self._terminal.fail(str(outcome.broken))

    def verified(self, outcome: Verification) -> None:
        """Says what came of reading everything back."""
        self._close_display()
        self._events.emit("verification", outcome.as_json())
        if outcome.exit_code == 0:
            self._terminal.say(outcome.summary())
            return
        self._terminal.fail(outcome.summary())
        for kind, identifier, reason in outcome.found.examples():
            self._terminal.show(f"  {kind}: {identifier}: {reason}")
        self._terminal.show(f"  to repair it: {self._terminal.printed.command(outcome.repair_command())}")

    def nothing_to_do(self, task: Task | None, *, exit_code: int, skipped: str | None) -> None:
        """Says that a task needed no work, or why what was asked for was skipped."""
        self._close_display()
        self._summary(task, exit_code=exit_code, detail=skipped)
        if self._terminal.quiet and exit_code == 0:
            return
        if skipped is not None:
            self._terminal.show(f"nothing was done: {skipped}")
        elif task is not None:
            line = f"task {task.id} is {task.status} already: {counts_line(task.counts.as_json())}"
            self._show_counts(line, task.counts, level=_level(exit_code))
            self._describe_if_quiet(task, exit_code=exit_code)
            self._show_rejects_and_remedy(task, level=_level(exit_code))
            if task.status is TaskStatus.CANCELED:
                self._terminal.show(f"  to go on with it: {self._command(f'restart {task.id}')}")

    def _close_display(self) -> None:
        with suppress(OSError):  # the terminal is gone, which must not change how the work ends
            self._display.close()

    def queued(self, task: Task) -> None:
        """Says that a task waits for a worker; its id is what a script goes on with."""
        self._close_display()
        self._events.task(task, running=False)
        self._summary(task, exit_code=0)
        if not self._events.wanted and not self._terminal.quiet:
            click.echo(task.id)
        self._terminal.say(f"task {task.id} is pending: {sources_in_short(task)}; `upsert-cli work` runs it")

    def failed(self, error: Exception | EndedBySignal, *, exit_code: int) -> None:
        """Reports what was done before an error; the error itself is shown by the error boundary."""
        self._close_display()
        task = None
        with suppress(UpsertCliError):  # a journal that cannot be read must not hide what happened first
            task = self._journal.find(self._task.id) if self._task is not None else None
        message = in_message(str(error))
        self._events.error(message, exit_code=exit_code)
        self._summary(task, exit_code=exit_code, detail=message)
        if task is None:
            return
        line = f"task {task.id} {task.status}: {task.rows:,} rows settled, {counts_line(task.counts.as_json())}"
        self._show_counts(line, task.counts, level="error")
        self._describe_if_quiet(task, exit_code=exit_code)
        if task.counts.failed:
            self._show_rejects(task, level="error")
        again = f"upsert-cli restart {task.id}"
        # What was typed wrong, or is refused for its options, a restart with the same options would not mend.
        if exit_code == UpsertCliError.exit_code and again not in str(error) and task.status is not TaskStatus.DONE:
            self._terminal.show(f"  to go on once that is mended: {self._terminal.printed.command(again)}")

    def _command(self, words: str) -> str:
        return self._terminal.printed.command(f"upsert-cli {words}")

    def _describe_if_quiet(self, task: Task, *, exit_code: int) -> None:
        """Show what was loaded and when, which without -q was said before, or is known to whoever looks on."""
        if self._terminal.quiet:
            for name, value in described_load(task, exit_code=exit_code):
                self._terminal.show(f"  {name:<9}  {value}")

    def _show_rejects_and_remedy(self, task: Task, *, level: Level) -> None:
        if task.counts.failed:
            self._show_rejects(task, level=level)
            self._terminal.show(f"  once they are mended: {command_for_mended(task, self._terminal.printed)}")

    def _show_counts(self, line: str, counts: Counts, *, level: Level) -> None:
        """Show a line with counts; that some items were rejected stands out in it."""
        self._terminal.show(line, accent=f"{counts.failed:,} rejected" if counts.failed else "", level=level)

    def _show_rejects(self, task: Task, *, level: Level) -> None:
        self._list_rejects(task.failed_items, level=level)
        more = task.counts.failed - min(len(task.failed_items), REPORTED_REJECTS)
        also = f"{more:,} more; " if more > 0 else ""
        self._terminal.show(f"  {also}all of them: {self._command(f'info {task.id} --failed')}")

    def _list_rejects(self, records: Sequence[dict[str, Any]], *, level: Level) -> None:
        # In GitHub Actions the last ones stay in the log alone, so that there is room for the error that ends the step.
        for number, record in enumerate(records[:REPORTED_REJECTS]):
            where, why = (record["source"], record["row"]), f"{record['failure_stage']}: {record['detail']}"
            if number < ANNOTATED_REJECTS:
                self._terminal.point_at(*where, why, level=level)
            else:
                self._terminal.list_row(*where, why)

    def _summary(self, task: Task | None, *, exit_code: int, detail: str | None = None) -> None:
        ending: dict[str, Any] = {"exit_code": exit_code, "seconds": self._seconds(), "detail": detail}
        self._events.summary(task, **ending)
        self._watchers.ended(task, **ending)

    def _seconds(self) -> float:
        return time.monotonic() - self._began


def _level(exit_code: int) -> Level:
    """Return how grave it is that items were rejected, by the exit code of their load."""
    return "warning" if exit_code in (0, SOME_REJECTED) else "error"
