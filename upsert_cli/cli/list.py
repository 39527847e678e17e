"""The command `list`: the tasks, once or again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

import click

from upsert_cli.cli.display.next_steps import how_to_continue
from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.tables import Column, print_table, redraw_table, shown_time
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.option import json_option, option
from upsert_cli.cli.options.param_types import integer, moment
from upsert_cli.cli.options.shared_options import watch_option
from upsert_cli.journal.task import SHOWN_STATES, Task, TaskStatus
from upsert_cli.signals import EndedBySignal

MAX_LIMIT = 1_000_000
DIED_NAMED = 5  # tasks that died whose next command is shown
WATCH_SECONDS = 2.0  # seconds between two tables

_COLUMNS = (
    Column("ID"),
    Column("STATUS"),
    Column("CREATED", order=1, widths=(7, 7, 4)),  # `Nov 28…`, and only at last `Nov…`
    Column("ROWS", number=True),
    Column("REJECTED", number=True),
    Column("COLLECTION", order=2, widths=(10, 6)),
    Column("SOURCES", order=3, widths=(12, 8), keep="end"),
)


@click.command("list", cls=Command)
@option("--offset", type=integer(0), default=0, metavar="N", help="Skip the newest N tasks.")
@option("--limit", type=integer(0, MAX_LIMIT), default=100, metavar="N", help="Show at most N tasks.")
@option(
    "--status",
    type=click.Choice([*(status.value for status in TaskStatus), *SHOWN_STATES]),
    multiple=True,
    metavar="STATUS,...",
    help="Only these: pending, processing, done, canceled, failed, refused, died, stopped.",
)
@option("--since", type=moment, metavar="AGE|DATE", help="Only tasks created since: 2h, 2026-11-24.")
@watch_option(f"Refresh every {WATCH_SECONDS:g} or SECS seconds.", seconds=WATCH_SECONDS)
@json_option("Print a JSON array, with --watch again and again.")
def list_tasks(
    session: Session,
    *,
    offset: int,
    limit: int,
    status: tuple[str, ...],
    since: str | None,
    watch: float | None,
    json: bool,
) -> None:
    """List the tasks, newest first."""

    def find() -> Sequence[Task]:
        found = session.journal.list(offset=offset, limit=limit, statuses=status, since=since)
        return [session.journal.with_runner(task) for task in found]

    if watch is not None:
        _watch(session, find, json=json, seconds=watch)
        return
    tasks = find()
    _show(session, tasks, json=json)
    if not tasks:
        none = "no tasks that match" if status or since or offset else "no tasks"
        session.info(f"{none} in {session.journal.folder}")
    _show_died(session, tasks)


def _show(session: Session, tasks: Sequence[Task], *, json: bool) -> None:
    if json:
        session.print_json([session.task_json(task) for task in tasks])
    else:
        print_table(session.terminal, _COLUMNS, _rows(tasks))


def _show_died(session: Session, tasks: Sequence[Task]) -> None:
    """Show the commands that continue the tasks that died."""
    died = [task for task in tasks if task.has_died]
    for task in died[:DIED_NAMED]:
        session.info(f"the runner of task {task.id} died; {how_to_continue(task)}")
    if (more := len(died) - DIED_NAMED) > 0:
        session.info(f"{more:,} more died; `upsert-cli list --status died` lists them")


def _watch(session: Session, find: Callable[[], Sequence[Task]], *, json: bool, seconds: float) -> None:
    """Show the tasks every `seconds` until a signal arrives; on a terminal, each table replaces the previous one."""
    try:
        if not json and sys.stdout.isatty():
            redraw_table(session.terminal, _COLUMNS, lambda: _rows(find()), seconds=seconds)
        while True:
            _show(session, find(), json=json)
            sys.stdout.flush()
            time.sleep(seconds)
    except EndedBySignal as error:
        raise EndedBySignal(error.number, "while it was watching") from error


def _rows(tasks: Sequence[Task]) -> list[tuple[str, ...]]:
    return [_row(task) for task in tasks]


def _row(task: Task) -> tuple[str, ...]:
    total = "" if task.total is None or task.total == task.rows else f"/{task.total}"
    return (
        task.id,
        task.shown_state,
        shown_time(task.created_at, short=True),
        f"{task.rows}{total}",
        str(task.counts.failed),
        task.collection,
        " ".join(task.sources),
    )
