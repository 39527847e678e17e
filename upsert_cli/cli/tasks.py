"""The commands that look at tasks: `info`, `list`, `cancel`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click

from upsert_cli.cli import refresh
from upsert_cli.cli.dates import Moment
from upsert_cli.cli.options import HOW_TO_REPEAT, Invocation, TaskId, common_options, json_option, option
from upsert_cli.cli.param_types import MAX_WATCH_SECONDS, Number
from upsert_cli.cli.streams import require_stdout
from upsert_cli.cli.tables import Column, print_pairs, print_table
from upsert_cli.cli.task_text import state_of
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.task import DIED, Attempt, Task, TaskStatus
from upsert_cli.journal.task_ids import resolve_task_id
from upsert_cli.report.printed_commands import how_to_continue
from upsert_cli.text import counts_line, safe_json, seconds_line

MAX_LIMIT = 1_000_000
DIED_NAMED = 5  # tasks that died of which `list` names the next command
WAIT_STEP = 0.2  # seconds between two looks at a task that is being canceled


@click.command()
@click.argument("task_id", type=TaskId(), metavar="TASK_ID")
@json_option("Print the task as one JSON object; with --follow one a line, each time that it has changed.")
@option("--failed", is_flag=True, help="Print all rejected items as JSONL, to be mended and loaded again.")
@option("--follow", is_flag=True, help="Show how it goes, whoever runs it, until it has ended.")
@option("--exit-status", is_flag=True, help="Exit as the task did.")
@common_options
def info(session: Invocation, *, task_id: str, json: bool, failed: bool, follow: bool, exit_status: bool) -> None:
    """Show one task: state, progress, counts, rejected items.

    TASK_ID is an id, a beginning that only one id has, or `latest` for the newest task. Takes no lock, so it answers
    while a load runs.
    """
    if follow and failed:
        raise click.UsageError("--failed prints what was rejected so far, so it does not go with --follow.")
    task_id = resolve_task_id(session.journal, task_id)
    task, running = refresh.follow(session, task_id, json=json) if follow else session.journal.look_at(task_id)
    if failed:
        require_stdout()  # also where there is nothing to print
        for record in session.journal.rejects(task_id):
            click.echo(safe_json(record))
    elif json and not follow:
        click.echo(safe_json(_as_json(session, task, running=running)))
    elif not json:
        print_pairs(_described(session, task, running=running))
    if exit_status:
        click.get_current_context().exit(_state_code(task, running=running))


@click.command("list")
@option("--offset", type=click.IntRange(0), default=0, metavar="N", help="Tasks to leave out, the newest first.")
@option("--limit", type=click.IntRange(0, MAX_LIMIT), default=100, metavar="N", help="Tasks to show.")
@option(
    "--status",
    type=click.Choice([*(status.value for status in TaskStatus), DIED]),
    multiple=True,
    help=f"Only those in this state; `died`: processing, but their runner is gone. {HOW_TO_REPEAT}",
)
@option("--since", type=Moment(), metavar="AGE|DATE", help="Only those made since then: 2h, 2026-11-24.")
@option(
    "--watch",
    is_flag=False,
    flag_value=refresh.WATCH_SECONDS,
    type=Number(0.1, MAX_WATCH_SECONDS),
    metavar="[SECS]",
    help=f"Show them anew every {refresh.WATCH_SECONDS:g} or SECS seconds, until a signal comes.",
)
@json_option("Print an array of tasks; with --watch one a line.")
@common_options
def list_tasks(session: Invocation, *, watch: float | None, json: bool, **which: Any) -> None:
    """List the tasks, newest first.

    Takes no lock, so it answers while a load runs.
    """
    which["statuses"] = which.pop("status")

    def found() -> list[tuple[Task, bool]]:
        return [session.journal.with_runner(task) for task in session.journal.list(**which)]

    def rows() -> list[tuple[str, ...]]:
        return [_row(task, running=running) for task, running in found()]

    def show(tasks: Sequence[tuple[Task, bool]]) -> None:
        if json:
            click.echo(safe_json([_as_json(session, task, running=running) for task, running in tasks]))
        else:
            print_table(session.terminal, _COLUMNS, [_row(task, running=running) for task, running in tasks])

    if watch is None:
        tasks = found()
        show(tasks)
        _explain_list(session, tasks, narrowed=bool(which["statuses"] or which["since"] or which["offset"]))
    elif not json and sys.stdout.isatty():
        refresh.watch_rows(session.terminal, _COLUMNS, rows, seconds=watch)
    else:
        refresh.watch_lines(lambda: show(found()), seconds=watch)


@click.command()
@click.argument("task_id", type=TaskId(), metavar="TASK_ID")
@option("--wait", type=Number(0), metavar="SECS", help="Wait so long until the runner has stopped.")
@json_option("Print the task as one JSON object.")
@common_options
def cancel(session: Invocation, *, task_id: str, wait: float | None, json: bool) -> None:
    """Stop a task, also one that another process runs.

    TASK_ID is an id, a beginning that only one id has, or `latest` for the newest task. A running task stops within
    one batch, at a checkpoint. `upsert-cli restart` continues it.
    """
    task_id = resolve_task_id(session.journal, task_id)
    task = session.journal.request_cancel(task_id)
    until = time.monotonic() + (wait or 0.0)
    while task.status is not TaskStatus.CANCELED and time.monotonic() < until:
        time.sleep(WAIT_STEP)
        task = session.journal.find(task_id)
    if json:
        task, running = session.journal.with_runner(task)
        click.echo(safe_json(_as_json(session, task, running=running)))
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


def _as_json(session: Invocation, task: Task, *, running: bool) -> dict[str, Any]:
    return session.terminal.printed.in_task(task).as_json(running=running)


def _explain_list(session: Invocation, tasks: Sequence[tuple[Task, bool]], *, narrowed: bool) -> None:
    """Say on stderr what a table cannot: where no task was found, and what continues those that died."""
    if not tasks:
        which = "no tasks that match" if narrowed else "no tasks"
        session.terminal.say(f"{which} in {session.journal.folder}")
    died = [task for task, running in tasks if task.has_died(running=running)]
    for task in died[:DIED_NAMED]:
        session.terminal.say(f"the runner of task {task.id} died; {how_to_continue(task)}")
    if (more := len(died) - DIED_NAMED) > 0:
        session.terminal.say(f"{more:,} more died; `upsert-cli list --status died` lists them")


def _state_code(task: Task, *, running: bool) -> int:
    if task.has_died(running=running):
        return UpsertCliError.exit_code  # its runner has died
    return task.exit_code


_COLUMNS = (
    Column(title="ID"),
    Column(title="STATUS"),
    Column(title="CREATED", order=1, widths=(11, 5)),
    Column(title="ROWS", number=True),
    Column(title="REJECTED", number=True),
    Column(title="COLLECTION", order=2, widths=(10, 6)),
    Column(title="SOURCES", order=3, widths=(12, 8), keep="end"),
)


def _row(task: Task, *, running: bool) -> tuple[str, ...]:
    total = "" if task.total is None or task.total == task.rows else f"/{task.total}"
    return (
        task.id,
        state_of(task, running=running),
        task.created_at,
        f"{task.rows}{total}",
        str(task.counts.failed),
        task.collection,
        " ".join(task.sources),
    )


def _described(session: Invocation, task: Task, *, running: bool) -> Iterable[tuple[str, str]]:
    complete = session.terminal.printed.complete
    task = session.terminal.printed.in_task(task)
    yield "task", task.id
    yield "status", state_of(task, running=running)
    if task.has_died(running=running):
        yield "next", complete(how_to_continue(task))
    if task.queued and not task.status.is_final:
        yield "queued", complete("`upsert-cli work` runs it")
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
            is_running = running and attempt.attempt == task.attempt
            yield f"attempt {attempt.attempt}", _attempt_line(attempt, is_running=is_running)
    if task.seconds:
        of_which = f" (attempt {task.attempt})" if task.attempt > 1 else ""
        yield "seconds", seconds_line(task.seconds) + of_which
    for record in task.failed_items:
        yield "rejected", f"{record['source']}:{record['row']} {record['failure_stage']}: {record['detail']}"


def _attempt_line(attempt: Attempt, *, is_running: bool) -> str:
    span = f"{attempt.started_at} to {attempt.finished_at}" if attempt.finished_at else f"since {attempt.started_at}"
    because = f" ({attempt.detail})" if attempt.detail else ""
    state = DIED if attempt.finished_at is None and not is_running else attempt.status
    return f"{state}, {span}, then {counts_line(attempt.counts.as_json())}{because}"
