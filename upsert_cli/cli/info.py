"""The command `info`: one task, now or until it has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime

import click

from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.tables import print_pairs, shown_time
from upsert_cli.cli.display.task_text import how_to_continue, next_steps, options_line
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.option import json_option, option
from upsert_cli.cli.options.shared_options import task_argument
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.task import DIED, Attempt, Task, TaskStatus
from upsert_cli.signals import EndedBySignal
from upsert_cli.text import counts_line, seconds_line

_PROSE = ("detail", "counts", "seconds", "rejected")  # the other values are commands, paths and names to copy
FOLLOW_SECONDS = 0.5  # seconds between two looks at a task


@click.command(cls=Command)
@task_argument()
@json_option("Print the task as JSON; with --follow every change.")
@json_option("Print all rejected items as JSONL, to correct.", name="--failed")
@option("--follow", is_flag=True, help="Show the progress until the task has ended.")
@option("--exit-status", is_flag=True, help="Exit with the code that the task stands for.")
def info(session: Session, *, task_id: str, json: bool, failed: bool, follow: bool, exit_status: bool) -> int:
    """Show one task: state, progress, counts, rejected items.

    TASK_ID may be the beginning of an id, or `latest`. Works during a load.
    """
    if follow and failed:
        raise click.UsageError("--failed prints the items rejected so far, so it does not go with --follow.")
    task = session.task(task_id)
    if follow:
        task = _follow(session, task.id, json=json)
    if failed:
        for record in session.journal.rejects(task.id):
            session.print_json(record)
    elif json and not follow:
        session.print_json(session.task_json(task))
    elif not json:
        print_pairs(_described(session, task), prose=_PROSE)
    return _exit_code(task) if exit_status else 0


def _follow(session: Session, task_id: str, *, json: bool) -> Task:
    """Show the progress of a task until it has ended, or died and no worker will continue it, and return it."""
    from upsert_cli.cli.display.progress import ROWS_BAR, open_display, progress_of

    shown: dict[str, object] = {}
    waits = False
    began = 0.0
    try:
        with closing(open_display(session.terminal, bars=ROWS_BAR, json=json)) as display:
            while True:
                task = session.journal.with_runner(session.journal.find(task_id))
                if json and (now := session.task_json(task)) != shown:
                    shown = now
                    session.print_json(shown)
                if task.status is TaskStatus.PROCESSING:
                    began = began or _began(task)
                    display.update(progress_of(task, began=began))
                if not (task.running or waits or task.status.is_final):
                    _report_waiting(session, task)
                if task.status.is_final or (task.has_died and not task.queued):
                    return task
                waits = not task.running
                sys.stdout.flush()
                time.sleep(FOLLOW_SECONDS)
    except EndedBySignal as error:
        raise EndedBySignal(error.number, "while it was watching") from error


def _began(task: Task) -> float:
    """Return the monotonic time at which a load would have begun if its attempts had followed each other at once."""
    since_checkpoint = datetime.now(UTC) - datetime.fromisoformat(task.updated_at)
    return time.monotonic() - task.load_seconds - since_checkpoint.total_seconds()


def _report_waiting(session: Session, task: Task) -> None:
    """Report why no process runs a task."""
    if task.has_died:
        session.warning(f"the runner of task {task.id} died; {how_to_continue(task)}")
    else:
        session.info(f"task {task.id} waits to be run" + ("; `upsert-cli work` runs it" * task.queued))


def _exit_code(task: Task) -> int:
    return UpsertCliError.exit_code if task.has_died else task.exit_code


def _described(session: Session, task: Task) -> Iterable[tuple[str, str]]:
    task = session.terminal.printed.in_task(task)
    yield "task", task.id
    yield "status", task.shown_state
    if task.status.is_final or task.has_died:
        yield "exit code", str(_exit_code(task))
    for step in next_steps(task):
        yield "next", f"{step.label}: {session.terminal.printed.command(step.command)}"
    if task.detail is not None:
        yield "detail", task.detail
    yield "kind", task.kind
    yield "sources", " ".join(task.sources)
    yield "collection", f"{task.collection} in {task.chroma}"
    yield "model", task.model
    if options := options_line(task.options):
        yield "options", options
    yield "rows", str(task.rows) if task.total is None else f"{task.rows} of {task.total}"
    yield "counts", counts_line(task.counts.as_json())
    for name in ("created_at", "started_at", "finished_at", "updated_at"):
        if (moment := getattr(task, name)) is not None:
            yield name.removesuffix("_at"), shown_time(moment)
    yield from _attempts(task)
    for record in task.failed_items:
        yield "rejected", f"{record['source']}:{record['row']} {record['failure_stage']}: {record['detail']}"


def _attempts(task: Task) -> Iterable[tuple[str, str]]:
    yield "attempt", str(task.attempt)
    if len(task.attempts) > 1:
        for attempt in task.attempts:
            is_running = task.running and attempt.attempt == task.attempt
            yield f"attempt {attempt.attempt}", _attempt_line(attempt, is_running=is_running)
    if task.seconds:
        of_which = f" (attempt {task.attempt})" if task.attempt > 1 else ""
        yield "seconds", seconds_line(task.seconds) + of_which


def _attempt_line(attempt: Attempt, *, is_running: bool) -> str:
    began, ended = (shown_time(moment or "") for moment in (attempt.started_at, attempt.finished_at))
    span = f"{began} to {ended}" if ended else f"since {began}"
    because = f" ({attempt.detail})" if attempt.detail else ""
    state = DIED if attempt.finished_at is None and not is_running else attempt.status
    return f"{state}, {span}, then {counts_line(attempt.counts.as_json())}{because}"
