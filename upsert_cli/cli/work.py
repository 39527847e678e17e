"""The command `work`: a worker of the queue."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import click

from upsert_cli.cli.display.events import total
from upsert_cli.cli.display.invocation import Invocation
from upsert_cli.cli.display.load_report import RunReport
from upsert_cli.cli.display.notifications import Notifications
from upsert_cli.cli.error_boundary import EventCommand
from upsert_cli.cli.options.option import common_options, option
from upsert_cli.cli.options.param_types import integer
from upsert_cli.cli.options.shared_options import EVENTS_OPTION, METRICS_OPTION, watch_option
from upsert_cli.cluster.unit_load import load_on_ray
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.task import Task
from upsert_cli.limits import require_resources
from upsert_cli.load.queue_worker import claim_queued, run_queued, worst_exit_code
from upsert_cli.signals import EndedBySignal, exit_code_of

WATCH_SECONDS = 5.0  # seconds between two looks for new tasks; a look takes milliseconds


@click.command(cls=EventCommand)
@option("--once", is_flag=True, help="Run at most one task.")
@watch_option(f"Wait for new tasks; look every {WATCH_SECONDS:g} or SECS seconds.", seconds=WATCH_SECONDS)
@option("--max-tasks", type=integer(1), metavar="N", help="End after N tasks.")
@METRICS_OPTION
@EVENTS_OPTION
@common_options
def work(
    session: Invocation,
    *,
    once: bool,
    watch: float | None,
    max_tasks: int | None,
    metrics_file: Path | None,
    **_: bool,
) -> None:
    """Run the tasks that `run --enqueue` created, oldest first.

    Ends when nothing is pending; `upsert-cli help queues` says more.

    \b
    upsert-cli work --watch
    """
    if once and (watch is not None or max_tasks is not None):
        raise click.UsageError("--once runs one task; it goes neither with --watch nor with --max-tasks.")
    report = _WorkReport(session, Notifications(terminal=session.terminal, metrics=metrics_file))
    limit = 1 if once else max_tasks
    queued = claim_queued(session.journal, watch=watch, max_tasks=limit, context=session.context)
    try:
        require_resources()
        with closing(queued):
            for task, claim in queued:
                observer = report.next_task()
                report.finished(*run_queued(session.journal, claim, task, observer=observer, load_in_units=load_on_ray))
    except (UpsertCliError, EndedBySignal) as error:
        report.interrupted(error)
        raise
    report.close()
    click.get_current_context().exit(worst_exit_code(report.codes))


class _WorkReport:
    """The report of one worker, with a report of each task."""

    def __init__(self, session: Invocation, notifications: Notifications) -> None:
        self.codes: list[int] = []
        self._session = session
        self._notifications = notifications
        self._began = time.monotonic()
        self._statuses: Counter[str] = Counter()
        self._task_report: RunReport | None = None

    def next_task(self) -> RunReport:
        """Return the report of the next task."""
        self._task_report = RunReport(self._session, self._notifications, one_of_many=True)
        return self._task_report

    def finished(self, task: Task, error: UpsertCliError | None) -> None:
        """Report the end of a task, and the error that ended it."""
        self.codes.append(task.exit_code)
        self._statuses[task.status.value] += 1
        report, self._task_report = self._task_report, None
        if report is None:
            return
        if error is None:
            report.finished(task, exit_code=task.exit_code)
        else:
            report.failed(error, exit_code=task.exit_code)
            self._session.terminal.error(str(error))
        self._session.show_warnings()  # a worker that watches may run for weeks

    def interrupted(self, error: UpsertCliError | EndedBySignal) -> None:
        """Report the state of the task during which the worker ends."""
        if self._task_report is not None:
            self._task_report.failed(error, exit_code=exit_code_of(error))
        self._summary(exit_code_of(error))

    def close(self) -> None:
        """Report all tasks."""
        self._summary(worst_exit_code(self.codes))
        each = ", ".join(f"{count:,} {status}" for status, count in sorted(self._statuses.items()))
        done = f"{len(self.codes):,} task{'s' * (len(self.codes) != 1)} run: {each}" if each else "nothing was pending"
        self._session.terminal.info(done)

    def _summary(self, exit_code: int) -> None:
        tasks = {"id": None, "tasks": len(self.codes), "statuses": dict(sorted(self._statuses.items()))}
        seconds = total(time.monotonic() - self._began)
        self._session.events.emit("summary", {"exit_code": exit_code, "seconds": seconds} | tasks)
