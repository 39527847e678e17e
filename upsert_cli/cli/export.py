"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.streams import require_stdout
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.option import json_option, option
from upsert_cli.cli.options.param_types import integer
from upsert_cli.cli.options.shared_options import CHROMA_OPTION, WHERE_OPTION, collection_argument
from upsert_cli.limits import require_resources
from upsert_cli.sources.formats import STDOUT, WRITTEN_FORMATS, format_name_of

if TYPE_CHECKING:
    from upsert_cli.verify.export import Export


@click.command(cls=Command)
@collection_argument("collection")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), metavar="FILE")
@CHROMA_OPTION
@option(
    "--format",
    "format_name",
    type=click.Choice(WRITTEN_FORMATS),
    metavar="FORMAT",
    show_default="by the suffix",
    help="Format: jsonl (or .gz, .zst), parquet.",
)
@option("--vectors", is_flag=True, help="Write the vectors too, bit by bit.")
@WHERE_OPTION
@option("--limit", type=integer(1), metavar="N", help="Write only the first N records.")
@option("--text-field", default="text", metavar="NAME", help="The payload's field for the document.")
@option("--vector-field", default="vector", metavar="NAME", help="With --vectors: the payload's field for the vector.")
@json_option("Print the outcome as JSON.")
def export(
    session: Session,
    *,
    collection: str,
    file: Path,
    chroma: str,
    format_name: str | None,
    vectors: bool,
    where: dict[str, Any] | None,
    limit: int | None,
    text_field: str,
    vector_field: str,
    json: bool,
) -> int:
    """Write a collection to a file that `run` reads back.

    FILE gets one item per record, as JSONL or Parquet; - is standard output. An existing FILE is replaced once the new
    one is complete. Works during a load. Exits with 3 if records could not be read back as they are; each is named.

    \b
    upsert-cli export default backup.jsonl.zst
    upsert-cli export default copy.parquet --vectors --chroma ./chroma
    """
    format_name = _format_for(file, format_name, json=json)
    if vector_field != "vector" and not vectors:
        raise click.UsageError("--vector-field goes with --vectors.")
    if not text_field or not vector_field or text_field == vector_field:
        raise click.UsageError("--text-field and --vector-field have to name two fields.")
    from upsert_cli.documents.stored_items import ItemForm
    from upsert_cli.verify.export import export as export_records

    require_resources()
    with session.showing_rows(prints_data=str(file) == STDOUT):
        outcome = export_records(
            chroma,
            collection,
            file,
            format_name=format_name,
            form=ItemForm(text_field=text_field, vector_field=vector_field, with_vectors=vectors),
            where=where,
            limit=limit,
            context=session,
        )
    _show(session, outcome, json=json)
    return outcome.exit_code


def _format_for(file: Path, given: str | None, *, json: bool) -> str:
    """Return the format of a file that has to be written."""
    if str(file) == STDOUT:
        if json:
            raise click.UsageError("--json prints the outcome on standard output, which cannot take the records too.")
        if given == "parquet":
            raise click.UsageError("Parquet cannot be written to standard output; name a file.")
        require_stdout()
        return given or WRITTEN_FORMATS[0]
    found = given or format_name_of(file)
    if found not in WRITTEN_FORMATS:
        raise click.UsageError(
            f"{str(file)!r} does not end in .jsonl, .jsonl.gz, .jsonl.zst or .parquet; --format names the format."
        )
    return found


def _show(session: Session, outcome: Export, *, json: bool) -> None:
    terminal = session.terminal
    if json:
        session.print_json(outcome.as_json())
    for identifier, detail in outcome.examples.items():
        terminal.warning(f"{identifier} is not in the file: {detail}")
    if outcome.refused > len(outcome.examples):
        terminal.warning(f"{outcome.refused - len(outcome.examples):,} more records are not in the file")
    if outcome.chunks:
        terminal.warning(
            f"{outcome.chunks:,} chunks of --split are separate items in the file, since chunks of their item overlap "
            "or are missing"
        )
    if outcome.has_changed:
        terminal.warning("the collection changed during the export, so the file may hold some records as they were")
    terminal.info(f"wrote {outcome.records:,} of {outcome.records + outcome.refused:,} records to {outcome.file}")
    if str(outcome.file) != STDOUT and not terminal.quiet:
        *first, last = outcome.lacks
        terminal.print_command(outcome.load_command(), f"to load it, add {', '.join(first)} and {last}")
