"""The command that runs what is queued: `work`."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import click

from upsert_cli.cli.events import took
from upsert_cli.cli.json_command import Eventful
from upsert_cli.cli.load_options import metrics_option
from upsert_cli.cli.load_report import RunReport
from upsert_cli.cli.notifications import Notifications
from upsert_cli.cli.options import Invocation, common_options, json_option, option
from upsert_cli.cli.param_types import MAX_WATCH_SECONDS, Number
from upsert_cli.cli.terminal import TerminalContext
from upsert_cli.cluster.coordinator import load_on_ray
from upsert_cli.errors import UpsertCliError
from upsert_cli.limits import require_resources
from upsert_cli.load.queue_worker import QueueResult, claim_queued, run_queued, worst_exit_code
from upsert_cli.load.stop import EndedBySignal, exit_code_of
from upsert_cli.text import safe_json

WATCH_SECONDS = 5.0  # seconds between two looks for new tasks; a look costs milliseconds


@click.command(cls=Eventful)
@option("--once", is_flag=True, help="Run one task, if there is one, and end.")
@option(
    "--watch",
    is_flag=False,
    flag_value=WATCH_SECONDS,
    type=Number(0.1, MAX_WATCH_SECONDS),
    metavar="[SECS]",
    show_default="end when nothing is pending",
    help=f"Look for new tasks every {WATCH_SECONDS:g} or SECS seconds, until a signal comes.",
)
@option("--max-tasks", type=click.IntRange(1), metavar="N", show_default="no limit", help="End after N tasks.")
@metrics_option()
@json_option("Print one JSON object a line: those of each task, and a summary of all as the last one.")
@common_options
def work(
    session: Invocation,
    *,
    once: bool,
    watch: float | None,
    max_tasks: int | None,
    metrics_file: Path | None,
    json: bool,
) -> None:
    """Run the tasks that `run --enqueue` left, the oldest first.

    Ends when nothing is pending. Any number of workers may run side by side: each takes tasks that no other has, and
    those whose worker died; of tasks into one Chroma folder one is run at a time. SIGTERM ends a worker after the
    write in flight, and the task is pending again.

    \b
    upsert-cli run nightly/ --enqueue
    upsert-cli work
    upsert-cli work --watch
    """
    if once and (watch is not None or max_tasks is not None):
        raise click.UsageError("--once runs one task; it goes neither with --watch nor with --max-tasks.")
    shift = _Shift(session, Notifications(terminal=session.terminal, metrics=metrics_file), json=json)
    queued = claim_queued(
        session.journal,
        watch=watch,
        max_tasks=1 if once else max_tasks,
        context=TerminalContext(session.terminal),
    )
    try:
        require_resources()
        with closing(queued):
            for task, claim in queued:
                shift.end(run_queued(session.journal, claim, task, observer=shift.begin(), load_in_units=load_on_ray))
    except (UpsertCliError, EndedBySignal) as error:
        shift.broken_off(error)
        raise
    shift.close()
    click.get_current_context().exit(worst_exit_code(shift.codes))


class _Shift:
    """What one worker says about its tasks, one after the other."""

    def __init__(self, session: Invocation, watchers: Notifications, *, json: bool) -> None:
        self.codes: list[int] = []
        self._session = session
        self._watchers = watchers
        self._json = json
        self._began = time.monotonic()
        self._statuses: Counter[str] = Counter()
        self._report: RunReport | None = None

    def begin(self) -> RunReport:
        """Return the report of the next task."""
        self._report = RunReport(
            self._session.journal,
            self._session.terminal,
            json=self._json,
            watchers=self._watchers,
            one_of_many=True,
        )
        return self._report

    def end(self, outcome: QueueResult) -> None:
        """Says how a task ended."""
        self.codes.append(outcome.exit_code)
        self._statuses[outcome.task.status.value] += 1
        report, self._report = self._report, None
        if report is None:
            return
        if outcome.error is None:
            report.finished(outcome.task, exit_code=outcome.exit_code)
        else:
            report.failed(outcome.error, exit_code=outcome.exit_code)
            self._session.terminal.fail(str(outcome.error))
        self._session.show_warnings()  # a worker that watches may not come to its end for weeks

    def broken_off(self, error: UpsertCliError | EndedBySignal) -> None:
        """Says how far the task is in whose middle the worker ends."""
        if self._report is not None:
            self._report.failed(error, exit_code=exit_code_of(error))
        self._summary(exit_code_of(error))

    def close(self) -> None:
        """Says what was done."""
        self._summary(worst_exit_code(self.codes))
        each = ", ".join(f"{count:,} {status}" for status, count in sorted(self._statuses.items()))
        done = f"{len(self.codes):,} task{'s' * (len(self.codes) != 1)} run: {each}" if each else "nothing was pending"
        self._session.terminal.say(done)

    def _summary(self, exit_code: int) -> None:
        if self._json:
            seconds = took(time.monotonic() - self._began)
            fields = {"id": None, "tasks": len(self.codes), "statuses": dict(sorted(self._statuses.items()))}
            click.echo(safe_json({"type": "summary", "exit_code": exit_code, "seconds": seconds} | fields))
