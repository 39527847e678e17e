"""The command `restart`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from upsert_cli.cli.attempt import attempt_opened
from upsert_cli.cli.display.load_report import RunReport
from upsert_cli.cli.display.session import Session
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.option import option
from upsert_cli.cli.options.shared_options import EVENTS_OPTION, METRICS_OPTION, load_option, task_argument

_FAILED_ONLY_HELP = (
    "Read only the rejected rows again, once a cause outside the sources is removed. If the sources changed, use "
    "--from-start."
)


@click.command(cls=Command, prints_events=True)
@task_argument()
@option("--from-start", is_flag=True, help="Read the sources again from the first row.")
@option("--failed-only", is_flag=True, help=_FAILED_ONLY_HELP)
@load_option("max_failures", show_default="as before")
@load_option("max_delete", show_default="as before")
@option("--enqueue", is_flag=True, help="Leave the task to `upsert-cli work`.")
@METRICS_OPTION
@EVENTS_OPTION
def restart(session: Session, *, task_id: str, enqueue: bool, metrics_file: Path | None, **how: Any) -> int:
    """Set a task back to pending and continue it at its checkpoint.

    TASK_ID may be the beginning of an id, or `latest`. A running task is refused, and so is a source that changed since
    the checkpoint; --from-start reads it again.
    """
    if enqueue:
        session.require_stdout()
    if how["from_start"] and how["failed_only"]:
        raise click.UsageError("--from-start reads all rows and --failed-only the rejected ones; choose one of them.")
    from upsert_cli.load.open import restart_task

    with RunReport(session, metrics=metrics_file) as report:
        opened = restart_task(session.journal, session.journal.resolve(task_id), enqueue=enqueue, **how)
        return attempt_opened(session, opened, report)
