"""The command `work`: a worker of the queue."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from upsert_cli.cli.attempt import attempt_queued
from upsert_cli.cli.display.session import Session, total
from upsert_cli.cli.display.task_text import by_status, tasks_line
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.option import option
from upsert_cli.cli.options.param_types import integer
from upsert_cli.cli.options.shared_options import EVENTS_OPTION, METRICS_OPTION, watch_option
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.task import TaskStatus
from upsert_cli.signals import EndedBySignal, exit_code_of

WATCH_SECONDS = 5.0  # seconds between two looks for new tasks; a look takes milliseconds


@click.command(cls=Command, prints_events=True)
@option("--once", is_flag=True, help="Run at most one task.")
@watch_option(f"Wait for new tasks; look every {WATCH_SECONDS:g} or SECS seconds.", seconds=WATCH_SECONDS)
@option("--max-tasks", type=integer(1), metavar="N", help="End after N tasks.")
@METRICS_OPTION
@EVENTS_OPTION
def work(session: Session, *, once: bool, watch: float | None, max_tasks: int | None, metrics_file: Path | None) -> int:
    """Run the tasks that `run --enqueue` created, oldest first.

    Ends when nothing is pending; see `upsert-cli help queues`.

    \b
    upsert-cli work --watch
    """
    if once and (watch is not None or max_tasks is not None):
        raise click.UsageError("--once runs one task; it goes neither with --watch nor with --max-tasks.")
    from upsert_cli.load.queue_worker import claim_queued, worst_exit_code

    limit = 1 if once else max_tasks
    queued = claim_queued(session.journal, watch=watch, max_tasks=limit, context=session)
    ended: list[tuple[TaskStatus, int]] = []  # no tasks, since a worker that watches may run for weeks
    try:
        with closing(queued):
            for task, claim in queued:
                ended.append(attempt_queued(session, task, claim, metrics=metrics_file))
                session.show_warnings()  # not only at the end, which may be weeks away
    except (UpsertCliError, EndedBySignal) as error:
        _conclude(session, ended, exit_code=exit_code_of(error))
        raise
    code = worst_exit_code(code for _, code in ended)
    statuses = _conclude(session, ended, exit_code=code)
    session.info(tasks_line(statuses, "run") if statuses else "nothing was pending")
    return code


def _conclude(session: Session, ended: list[tuple[TaskStatus, int]], *, exit_code: int) -> dict[str, int]:
    """Print the last event, and return the number of tasks in each state."""
    statuses = by_status(status for status, _ in ended)
    outcome = {"exit_code": exit_code, "seconds": total(session.seconds)}
    session.events.emit("summary", outcome | {"id": None, "tasks": len(ended), "statuses": statuses})
    return statuses
