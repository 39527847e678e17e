"""The command that lists what a target holds: `collections`."""

from __future__ import annotations

import click

from upsert_cli.checking.inventory import Entry, collections_at
from upsert_cli.cli.options import Session, common_options, json_option
from upsert_cli.cli.tables import Column, print_table
from upsert_cli.cli.target_options import chroma_option
from upsert_cli.cli.task_words import state_of
from upsert_cli.cli.text import safe_json

_COLUMNS = (
    Column(title="COLLECTION"),
    Column(title="RECORDS", number=True),
    Column(title="DIMENSION", number=True),
    Column(title="TASK"),
    Column(title="STATUS"),
    Column(title="FINISHED", order=1, widths=(11, 5)),
    Column(title="MODEL", order=2, widths=(18, 8), keep="end"),
)


@click.command()
@chroma_option()
@json_option("Print an array of collections.")
@common_options
def collections(session: Session, *, chroma: str, json: bool) -> None:
    """List the collections of a target, and what was loaded last into each.

    The task is the newest of this journal. Takes no lock, so it answers while a load runs.

    \b
    upsert-cli collections --chroma ./chroma
    """
    found = collections_at(session.journal, chroma)
    if json:
        click.echo(safe_json([one.as_json() for one in found]))
        return
    print_table(session.terminal, _COLUMNS, [_row(session, one) for one in found])


def _row(session: Session, one: Entry) -> tuple[str, ...]:
    task, running = (None, False) if one.task is None else session.journal.with_runner(one.task)
    of_task = ("", "", "") if task is None else (task.id, state_of(task, running=running), task.finished_at or "")
    return (one.name, str(one.records), str(one.dimension or ""), *of_task, one.model or "")
