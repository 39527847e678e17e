"""The command `prune`."""

from __future__ import annotations

import click

from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.tables import Column, print_table, shown_time
from upsert_cli.cli.display.task_text import by_status, tasks_line
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.option import json_option, option
from upsert_cli.cli.options.param_types import integer, moment
from upsert_cli.journal.prune import FINAL, prune_tasks
from upsert_cli.journal.task import TaskStatus

_COLUMNS = (Column("ID"), Column("STATUS"), Column("UPDATED", widths=(7,)))


@click.command(cls=Command)
@option("--older-than", type=moment, metavar="AGE|DATE", help="Only tasks unchanged since: 90d, 2026-08-01.")
@option("--keep", type=integer(0), metavar="N", help="Keep the newest N of them.")
@option(
    "--status",
    type=click.Choice([status.value for status in FINAL]),
    multiple=True,
    metavar="STATUS,...",
    help="Only these: done, canceled, failed, refused.",
)
@option("--dry-run", is_flag=True, help="List these tasks, and remove nothing.")
@json_option("Print the outcome as JSON.")
def prune(
    session: Session, *, older_than: str | None, keep: int | None, status: tuple[str, ...], dry_run: bool, json: bool
) -> None:
    """Remove old tasks from the journal, but no records.

    Removes the tasks that match every condition and have ended.

    \b
    upsert-cli prune --older-than 90d --status failed --dry-run
    """
    if older_than is None and keep is None and not status:
        raise click.UsageError("name the tasks to remove: --older-than, --keep or --status.")
    statuses = tuple(map(TaskStatus, status)) or FINAL
    gone = prune_tasks(session.journal, statuses=statuses, before=older_than, keep=keep or 0, dry_run=dry_run)
    counts = by_status(task.status for task in gone)
    if json:
        ids = [task.id for task in gone]
        session.print_json({"dry_run": dry_run, "tasks": len(gone), "statuses": counts, "ids": ids})
    elif dry_run and gone:
        rows = [(task.id, task.status.value, shown_time(task.updated_at, short=True)) for task in gone]
        print_table(session.terminal, _COLUMNS, rows)
    session.info(tasks_line(counts, "would go" if dry_run else "removed"))
