"""The command that lists what a target holds: `collections`."""

from __future__ import annotations

import click

from upsert_cli.cli.options import Invocation, common_options, json_option
from upsert_cli.cli.tables import Column, print_table
from upsert_cli.cli.target_options import chroma_option
from upsert_cli.cli.task_text import state_of
from upsert_cli.text import safe_json
from upsert_cli.verify.collections import CollectionSummary, collections_at

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
def collections(session: Invocation, *, chroma: str, json: bool) -> None:
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


def _row(session: Invocation, one: CollectionSummary) -> tuple[str, ...]:
    task, running = (None, False) if one.task is None else session.journal.with_runner(one.task)
    of_task = ("", "", "") if task is None else (task.id, state_of(task, running=running), task.finished_at or "")
    return (one.name, str(one.records), str(one.dimension or ""), *of_task, one.model or "")
