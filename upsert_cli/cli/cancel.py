"""The command `cancel`."""

from __future__ import annotations

import time

import click

from upsert_cli.cli.display.session import Session
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.option import json_option, option
from upsert_cli.cli.options.param_types import number
from upsert_cli.cli.options.shared_options import task_argument
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.claims import request_cancel
from upsert_cli.journal.task import TaskStatus

WAIT_STEP = 0.2  # seconds between two checks of the task


@click.command(cls=Command)
@task_argument()
@option("--wait", type=number(0), metavar="SECS", help="Wait up to SECS until the task has stopped.")
@json_option("Print the task as JSON.")
def cancel(session: Session, *, task_id: str, wait: float | None, json: bool) -> None:
    """Stop a task, even if another process runs it.

    TASK_ID may be the beginning of an id, or `latest`. A running task stops within one batch, at a checkpoint;
    `upsert-cli restart` continues it.
    """
    task_id = session.journal.resolve(task_id)
    task = request_cancel(session.journal, task_id)
    until = time.monotonic() + (wait or 0.0)
    while not task.status.is_final and time.monotonic() < until:
        time.sleep(WAIT_STEP)
        task = session.task(task_id)
        if task.has_died:  # nobody is left to stop it
            task = request_cancel(session.journal, task_id)
    if json:
        task = session.journal.with_runner(task)
        session.print_json(session.task_json(task))
    if task.status is TaskStatus.CANCELED:
        session.info(f"task {task_id} is canceled; `upsert-cli restart {task_id}` continues it")
    elif task.status.is_final:
        raise UpsertCliError(message=f"task {task_id} came to its end before it could be canceled: it is {task.status}")
    elif wait is not None:
        raise UpsertCliError(
            message=f"task {task_id} has not stopped within {wait:g} s; it will after the batch in flight"
        )
    else:
        session.info(f"task {task_id} will stop after the batch in flight; `upsert-cli info {task_id}` shows it")
