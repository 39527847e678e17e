"""The command `info`: one task, now or until it has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import click

from upsert_cli.cli.display.next_steps import how_to_continue
from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.tables import print_pairs
from upsert_cli.cli.display.task_text import PROSE, description, exit_code_for
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.option import json_option, option
from upsert_cli.cli.options.shared_options import task_argument
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.signals import EndedBySignal

FOLLOW_SECONDS = 0.5  # seconds between two checks of a task


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
        print_pairs(description(task, session.terminal.printed), prose=PROSE)
    return exit_code_for(task) if exit_status else 0


def _follow(session: Session, task_id: str, *, json: bool) -> Task:
    """Show the progress of a task until nothing will change any more, and return it."""
    from upsert_cli.cli.display.progress import ROWS_BAR, open_display, progress_of

    shown: dict[str, object] = {}
    has_runner = True
    began = 0.0
    try:
        with closing(open_display(session.terminal, bars=ROWS_BAR, prints_data=json)) as display:
            for task in _until_ended(session, task_id):
                if json and (now := session.task_json(task)) != shown:
                    shown = now
                    session.print_json(shown)
                if task.status is TaskStatus.PROCESSING:
                    began = began or _began(task)
                    display.update(progress_of(task, began=began))
                if has_runner and not task.running and not task.status.is_final:
                    _report_waiting(session, task)
                has_runner = task.running
            return task
    except EndedBySignal as error:
        raise EndedBySignal(error.number, "while it was watching") from error


def _until_ended(session: Session, task_id: str) -> Iterator[Task]:
    """Yield a task twice a second until it has ended, or has died and no worker will continue it."""
    while True:
        task = session.journal.with_runner(session.journal.find(task_id))
        yield task
        if task.status.is_final or (task.has_died and not task.queued):
            return
        sys.stdout.flush()
        time.sleep(FOLLOW_SECONDS)


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
