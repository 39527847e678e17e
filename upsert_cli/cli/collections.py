"""The command `collections`."""

from __future__ import annotations

import click

from upsert_cli.cli.help_format import SectionedCommand
from upsert_cli.cli.options import Invocation, common_options, json_option
from upsert_cli.cli.tables import Column, print_table, shown_time
from upsert_cli.cli.target_options import chroma_option
from upsert_cli.text import safe_json
from upsert_cli.verify.collections import CollectionSummary, collections_at

_COLUMNS = (
    Column("COLLECTION"),
    Column("RECORDS", number=True),
    Column("DIMENSION", number=True),
    Column("TASK"),
    Column("STATUS"),
    Column("FINISHED", order=1, widths=(7,)),
    Column("MODEL", order=2, widths=(18, 8), keep="end"),
)


@click.command(cls=SectionedCommand)
@chroma_option()
@json_option("Print a JSON array.")
@common_options
def collections(session: Invocation, *, chroma: str, json: bool) -> None:
    """List the collections of a target and the latest loads.

    The task is the newest of this journal. Works during a load.

    \b
    upsert-cli collections --chroma ./chroma
    """
    found = collections_at(session.journal, chroma)
    if json:
        click.echo(safe_json([summary.as_json() for summary in found]))
        return
    print_table(session.terminal, _COLUMNS, [_row(session, summary) for summary in found])


def _row(session: Invocation, summary: CollectionSummary) -> tuple[str, ...]:
    task, running = (None, False) if summary.task is None else session.journal.with_runner(summary.task)
    of_task = (
        ("", "", "")
        if task is None
        else (task.id, task.shown_state(running=running), shown_time(task.finished_at or "", short=True))
    )
    return (summary.name, str(summary.records), str(summary.dimension or ""), *of_task, summary.model or "")
