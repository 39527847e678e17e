"""The commands that look at tasks: `info`, `list`, `cancel`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

import click

from upsert_cli.cli import watching
from upsert_cli.cli.moments import Moment
from upsert_cli.cli.options import Session, TaskId, common_options, json_option, option
from upsert_cli.cli.streams import require_stdout
from upsert_cli.cli.tables import print_table
from upsert_cli.cli.text import counts_line, safe, safe_json, seconds_line, tab_separated
from upsert_cli.cli.values import MAX_WATCH_SECONDS, Number
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.attempts import Attempt
from upsert_cli.journal.tasks import Task, TaskStatus

MAX_LIMIT = 1_000_000
WAIT_STEP = 0.2  # seconds between two looks at a task that is being canceled


@click.command()
@click.argument("task_id", type=TaskId(), metavar="TASK_ID")
@json_option("Print the task as one JSON object; with --follow one a line, each time that it has changed.")
@option("--failed", is_flag=True, help="Print all rejected items as JSONL, to be mended and loaded again.")
@option("--follow", is_flag=True, help="Show how it goes, whoever runs it, until it has ended.")
@option("--exit-status", is_flag=True, help="Exit as the task did.")
@common_options
def info(session: Session, *, task_id: str, json: bool, failed: bool, follow: bool, exit_status: bool) -> None:
    """Show one task: state, progress, counts, rejected items.

    Takes no lock, so it answers while a load runs.
    """
    if follow and failed:
        raise click.UsageError("--failed prints what was rejected so far, so it does not go with --follow.")
    task, running = (
        watching.follow(session, task_id, json=json) if follow else watching.look_at(session.journal, task_id)
    )
    if failed:
        require_stdout()  # also where there is nothing to print
        for record in session.journal.rejects(task_id):
            click.echo(safe_json(record))
    elif json and not follow:
        click.echo(safe_json(_as_json(session, task, running=running)))
    elif not json:
        _print_pairs(_described(session.terminal.printed.in_task(task), running=running))
    if exit_status:
        click.get_current_context().exit(_state_code(task, running=running))


@click.command("list")
@option("--offset", type=click.IntRange(0), default=0, metavar="N", help="Tasks to leave out, the newest first.")
@option("--limit", type=click.IntRange(0, MAX_LIMIT), default=100, metavar="N", help="Tasks to show.")
@option("--status", type=click.Choice([status.value for status in TaskStatus]), help="Only those in this state.")
@option("--since", type=Moment(), metavar="AGE|DATE", help="Only those made since then: 2h, 2026-11-24.")
@option(
    "--watch",
    is_flag=False,
    flag_value=watching.WATCH_SECONDS,
    type=Number(0.1, MAX_WATCH_SECONDS),
    metavar="[SECS]",
    help=f"Show them anew every {watching.WATCH_SECONDS:g} or SECS seconds, until a signal comes.",
)
@json_option("Print an array of tasks; with --watch one a line.")
@common_options
def list_tasks(session: Session, *, watch: float | None, json: bool, **which: Any) -> None:
    """List the tasks, newest first.

    Takes no lock, so it answers while a load runs.
    """
    which["status"] = TaskStatus(which["status"]) if which["status"] is not None else None

    def rows() -> list[tuple[str, ...]]:
        tasks = session.journal.list(**which)
        return [_row(task, running=_running(session, task)) for task in tasks]

    def show() -> None:
        if json:
            tasks = session.journal.list(**which)
            click.echo(safe_json([_as_json(session, task, running=_running(session, task)) for task in tasks]))
        else:
            print_table(session.terminal, _HEADER, rows(), numbers=_NUMBERS)

    if watch is None:
        show()
    elif not json and sys.stdout.isatty():
        watching.watch_rows(session.terminal, _HEADER, rows, numbers=_NUMBERS, seconds=watch)
    else:
        watching.watch_lines(show, seconds=watch)


@click.command()
@click.argument("task_id", type=TaskId(), metavar="TASK_ID")
@option("--wait", type=Number(0), metavar="SECS", help="Wait so long until the runner has stopped.")
@json_option("Print the task as one JSON object.")
@common_options
def cancel(session: Session, *, task_id: str, wait: float | None, json: bool) -> None:
    """Stop a task, also one that another process runs.

    A running task stops within one batch, at a checkpoint. `upsert-cli restart` continues it.
    """
    task = session.journal.request_cancel(task_id)
    until = time.monotonic() + (wait or 0.0)
    while task.status is not TaskStatus.CANCELED and time.monotonic() < until:
        time.sleep(WAIT_STEP)
        task = session.journal.find(task_id)
    if json:
        click.echo(safe_json(_as_json(session, task, running=_running(session, task))))
    if task.status is TaskStatus.CANCELED:
        session.terminal.say(f"task {task_id} is canceled; `upsert-cli restart {task_id}` continues it")
    elif task.status.is_final:
        session.terminal.fail(f"task {task_id} came to its end before it could be canceled: it is {task.status}")
        click.get_current_context().exit(UpsertCliError.exit_code)
    elif wait is not None:
        session.terminal.fail(f"task {task_id} has not stopped within {wait:g} s; it will after the batch in flight")
        click.get_current_context().exit(UpsertCliError.exit_code)
    else:
        session.terminal.say(f"task {task_id} will stop after the batch in flight; `upsert-cli info {task_id}` tells")


def _as_json(session: Session, task: Task, *, running: bool) -> dict[str, Any]:
    return session.terminal.printed.in_task(task).as_json(running=running)


def _running(session: Session, task: Task) -> bool:
    return not task.status.is_final and session.journal.is_running(task.id)


def _state_code(task: Task, *, running: bool) -> int:
    from upsert_cli.loading.request import exit_code  # with all options of a load, for one option of `info`

    if task.status is TaskStatus.PROCESSING and not running:
        return UpsertCliError.exit_code  # its runner has died
    return exit_code(task)


_HEADER = ("ID", "STATUS", "CREATED", "ROWS", "REJECTED", "COLLECTION", "SOURCES")
_NUMBERS = ("ROWS", "REJECTED")


def _row(task: Task, *, running: bool) -> tuple[str, ...]:
    total = "" if task.total is None or task.total == task.rows else f"/{task.total}"
    return (
        task.id,
        _state(task, running=running),
        task.created_at,
        f"{task.rows}{total}",
        str(task.counts.failed),
        task.collection,
        " ".join(task.sources),
    )


def _state(task: Task, *, running: bool) -> str:
    dead = task.status is TaskStatus.PROCESSING and not running
    return f"{task.status.value} (runner died)" if dead else task.status.value


def _described(task: Task, *, running: bool) -> Iterable[tuple[str, str]]:
    yield "task", task.id
    yield "status", _state(task, running=running)
    if task.queued and not task.status.is_final:
        yield "queued", "`upsert-cli work` runs it"
    if task.detail is not None:
        yield "detail", task.detail
    yield "kind", task.kind
    yield "sources", " ".join(task.sources)
    yield "collection", f"{task.collection} in {task.chroma}"
    yield "model", task.model
    yield "rows", str(task.rows) if task.total is None else f"{task.rows} of {task.total}"
    yield "counts", counts_line(task.counts.as_json())
    for name in ("created_at", "started_at", "finished_at", "updated_at"):
        if (moment := getattr(task, name)) is not None:
            yield name.removesuffix("_at"), moment
    yield "attempt", str(task.attempt)
    if len(task.attempts) > 1:
        for attempt in task.attempts:
            yield f"attempt {attempt.attempt}", _attempt_line(attempt)
    if task.seconds:
        of_which = f" (attempt {task.attempt})" if task.attempt > 1 else ""
        yield "seconds", seconds_line(task.seconds) + of_which
    for record in task.failed_items:
        yield "rejected", f"{record['source']}:{record['row']} {record['failure_stage']}: {record['detail']}"


def _attempt_line(attempt: Attempt) -> str:
    span = f"{attempt.started_at} to {attempt.finished_at}" if attempt.finished_at else f"since {attempt.started_at}"
    because = f" ({attempt.detail})" if attempt.detail else ""
    return f"{attempt.status}, {span}, then {counts_line(attempt.counts.as_json())}{because}"


def _print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    if not sys.stdout.isatty():
        click.echo(tab_separated(pairs))
        return
    for name, value in pairs:
        click.echo(f"{name:<10}  {safe(value)}")
