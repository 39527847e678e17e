"""The command `query`."""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Any

import click

from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.tables import Column, print_table
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.completions import files
from upsert_cli.cli.options.option import all_of, json_option, option
from upsert_cli.cli.options.param_types import integer, json_vector, unicode_text
from upsert_cli.cli.options.shared_options import (
    CHROMA_OPTION,
    QUERY_MODEL_OPTIONS,
    WHERE_OPTION,
    collection_option,
    model_options,
)
from upsert_cli.limits import require_resources

if TYPE_CHECKING:
    from upsert_cli.store.base import Record

MAX_RECORDS = 1_000

_COLUMNS = (Column("ID"), Column("DISTANCE", number=True), Column("DOCUMENT", widths=(60, 20)))


@click.command(cls=Command)
@click.argument("text", type=unicode_text, metavar="[TEXT]", required=False)
@option("--vector", type=json_vector, metavar="FILE|JSON", shell_complete=files, help="Search by a vector, not a text.")
@option("-n", "rows", type=integer(1, MAX_RECORDS), default=5, metavar="N", help="Find N records.")
@CHROMA_OPTION
@collection_option("The collection to search.")
@WHERE_OPTION
@all_of(QUERY_MODEL_OPTIONS)
@json_option("Print the records whole, as JSON.")
def query(
    session: Session,
    *,
    text: str | None,
    vector: array[float] | None,
    rows: int,
    chroma: str,
    collection: str,
    where: dict[str, Any] | None,
    model: str | None,
    json: bool,
    **files: Any,
) -> None:
    """Find the records that are nearest to a text or a vector.

    Embeds TEXT with the model of the collection. --vector needs no model: it takes a JSON list of numbers, the name of
    a file that holds one, or - for standard input. Works during a load. A terminal shows the beginning of each
    document, a pipe and --json show all of it.

    \b
    upsert-cli query 'bread without kneading'
    upsert-cli query 'bread without kneading' -n 3 --json
    upsert-cli query --vector vector.json --collection own
    """
    if (text is None) == (vector is None):
        raise click.UsageError("Give either a TEXT or a --vector.")
    from upsert_cli.verify.query import nearest  # late: other commands load this module for its options
    from upsert_cli.verify.subject import Subject

    options = model_options(**files)
    require_resources()
    subject = Subject.of_collection(session.journal, chroma, collection, options, model=model)
    asked = vector if text is None else text
    assert asked is not None  # noqa: S101  # one of them is given
    records, hits = nearest(subject, asked, rows=rows, where=where or None, context=session)
    if json:
        asked_for = {"collection": collection, "chroma": chroma, "model": subject.target.model.name or None}
        found = {"records": records, "text": text, "where": where or None, "hits": list(map(_as_json, hits))}
        session.print_json(asked_for | found)
        return
    table = [(hit.id, f"{max(hit.distance, 0.0):.4f}", _document(hit.text or "")) for hit in hits]
    print_table(session.terminal, _COLUMNS, table)
    if not hits:
        session.info(f"none of the {records:,} records of {collection} matches --where")


def _as_json(hit: Record) -> dict[str, Any]:
    return {"id": hit.id, "distance": hit.distance, "document": hit.text, "metadata": hit.metadata}


def _document(text: str) -> str:
    """Return the cell of a document: whole in a pipe, on a single line on a terminal."""
    return " ".join(text.split()) if sys.stdout.isatty() else text
