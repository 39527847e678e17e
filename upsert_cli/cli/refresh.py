"""Tasks that other processes run, looked at again and again: `list --watch`, `info --follow`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import click

from upsert_cli.cli.display import ROWS_BAR, open_display
from upsert_cli.cli.frame import Frame
from upsert_cli.cli.options import Invocation
from upsert_cli.cli.tables import Column, table_lines
from upsert_cli.cli.terminal import Terminal
from upsert_cli.context import Progress
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.load.stop import EndedBySignal
from upsert_cli.report.printed_commands import how_to_continue
from upsert_cli.text import safe_json

WATCH_SECONDS = 2.0  # seconds between two looks at the list
FOLLOW_STEP = 0.5  # seconds between two looks at one task

Rows = Sequence[Sequence[str]]


def follow(session: Invocation, task_id: str, *, json: bool) -> tuple[Task, bool]:
    """Shows how a task goes until it has ended, or its runner has died and nobody is to take it over.

    Args:
        session: Where to look and where to show it.
        task_id: The task.
        json: Whether to print the task as a line of JSON each time that something has changed.

    Returns:
        The task as it is then, and whether a process runs it, which no one does any more.
    """
    shown: dict[str, object] = {}
    told = False
    with _ending_in_order(), closing(open_display(session.terminal, bars=ROWS_BAR, json=json)) as display:
        while True:
            task, running = session.journal.look_at(task_id)
            if json and (now := session.terminal.printed.in_task(task).as_json(running=running)) != shown:
                shown = now
                click.echo(safe_json(shown))
            if task.status is TaskStatus.PROCESSING:
                display.update(_progress_of(task))
            died = task.has_died(running=running)
            if died and not told:
                session.terminal.warn(f"the runner of task {task_id} died; {how_to_continue(task)}")
            if task.status.is_final or (died and not task.queued):
                return task, running
            if not (running or died or told):
                session.terminal.say(f"task {task_id} waits to be run" + ("; `upsert-cli work` does" * task.queued))
            told = told or not running
            sys.stdout.flush()
            time.sleep(FOLLOW_STEP)


def watch_rows(terminal: Terminal, columns: Sequence[Column], rows: Callable[[], Rows], *, seconds: float) -> None:
    """Draw a table on the terminal every `seconds`, over the one before, until a signal comes."""
    shown = rows()
    frame = Frame(terminal, lambda width: table_lines(columns, shown, width=width), stderr=False)
    with _ending_in_order(), frame:
        while True:
            frame.draw()
            time.sleep(seconds)
            shown = rows()


def watch_lines(show: Callable[[], None], *, seconds: float) -> None:
    """Prints the same anew every so often, until a signal comes or nobody reads any more."""
    with _ending_in_order():
        while True:
            show()
            sys.stdout.flush()
            time.sleep(seconds)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    try:
        yield
    except EndedBySignal as error:
        raise EndedBySignal(error.number, "while it was watching") from error


def _progress_of(task: Task) -> Progress:
    return Progress(total=task.total, settled=task.rows, counts=task.counts, stage="loading")
