"""The command `query`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from upsert_cli.cli.help_format import SectionedCommand
from upsert_cli.cli.option_values import typed_text
from upsert_cli.cli.options import Invocation, all_of, common_options, json_option, option
from upsert_cli.cli.param_types import Filter
from upsert_cli.cli.tables import Column, print_table
from upsert_cli.cli.target_options import QUERY_MODEL_OPTIONS, chroma_option, model_options
from upsert_cli.limits import require_resources
from upsert_cli.text import safe_json

if TYPE_CHECKING:
    from upsert_cli.verify.query import Nearest

MAX_RECORDS = 1_000

_COLUMNS = (Column("ID"), Column("DISTANCE", number=True), Column("DOCUMENT", widths=(60, 20)))


@click.command(cls=SectionedCommand)
@click.argument("text", metavar="TEXT", callback=lambda ctx, param, value: typed_text(value, ctx, param))
@option("-n", "rows", type=click.IntRange(1, MAX_RECORDS), default=5, metavar="N", help="Find N records.")
@chroma_option()
@option("--collection", default="default", metavar="NAME", help="The collection to search.")
@option("--where", type=Filter(), metavar="JSON", help='A filter, such as \'{"year": {"$gte": 2024}}\'.')
@all_of(QUERY_MODEL_OPTIONS)
@json_option("Print the records whole, as JSON.")
@common_options
def query(
    session: Invocation,
    *,
    text: str,
    rows: int,
    chroma: str,
    collection: str,
    where: dict[str, Any] | None,
    model: str | None,
    json: bool,
    **files: Any,
) -> None:
    """Find the records that are nearest to a text.

    Embeds TEXT with the model of the collection. Works during a load. A terminal shows the beginning of each document,
    a pipe and --json show all of it.

    \b
    upsert-cli query 'bread without kneading'
    upsert-cli query 'bread without kneading' -n 3 --json
    """
    from upsert_cli.verify.expected import Subject  # late: other commands look at the options of this one
    from upsert_cli.verify.query import nearest

    options = model_options(**files)
    require_resources()
    subject = Subject.of_collection(session.journal, chroma, collection, options, model=model)
    found = nearest(subject, text, rows=rows, where=where or None, context=session.context)
    if json:
        click.echo(safe_json(found.as_json()))
    else:
        _show(session, found)


def _show(session: Invocation, found: Nearest) -> None:
    rows = [(hit.id, f"{max(hit.distance, 0.0):.4f}", _document(hit.text or "")) for hit in found.hits]
    print_table(session.terminal, _COLUMNS, rows)
    if not rows:
        session.terminal.info(f"none of the {found.records:,} records of {found.target.collection} matches --where")


def _document(text: str) -> str:
    """Return the cell of a document: whole in a pipe, on a single line on a terminal."""
    return " ".join(text.split()) if sys.stdout.isatty() else text
