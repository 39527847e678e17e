"""The command `preview`."""

from __future__ import annotations

import json as stdlib_json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from upsert_cli.cli.display.invocation import Invocation
from upsert_cli.cli.display.tables import Column, table_lines
from upsert_cli.cli.options.help_format import SectionedCommand
from upsert_cli.cli.options.load_options import preview_options
from upsert_cli.cli.options.load_request import parsed_options, refuse_contradictions
from upsert_cli.cli.options.option import common_options
from upsert_cli.text import ellipsis, safe, safe_json, tab_separated

if TYPE_CHECKING:
    from rich.console import Console

    from upsert_cli.load.preview import Preview, PreviewedRecord, ReplacedRow
    from upsert_cli.sources.item import Reject

DOCUMENT_LINES = 5  # of a document on a terminal; enough to recognise it
LABEL = 10  # cells before a value on a terminal

_METADATA = (Column("METADATA"), Column("TYPE"), Column("VALUE", widths=(40, 25)))
_CONTAINERS = ("a list", "an object", "a map that repeats a key")  # become JSON, other values just text
_TYPES = {str: "text", bool: "boolean", int: "integer", float: "float"}


@click.command(cls=SectionedCommand)
@preview_options()
@common_options
def preview(
    session: Invocation, *, sources: tuple[str, ...], limit: int, model: str, json: bool, **options: Any
) -> None:
    """Show the first records exactly as `run` would store them.

    Writes nothing, and needs neither a collection nor the network. Shows each document with its tokens, if the model's
    tokenizer is on this machine, the metadata with converted values, and the rows that would be rejected, which do not
    change the exit code. A terminal shows the beginning of long texts, a pipe and --json show all of it.

    \b
    upsert-cli preview articles.jsonl
    upsert-cli preview products.csv --id-field sku --template '{title}' --limit 1
    """
    refuse_contradictions({"sources": sources, "model": model} | options)
    from upsert_cli.load.preview import preview as preview_rows

    found = preview_rows(
        sources,
        parsed_options(session.terminal, options),
        model_name=model,
        rows=limit,
        stdin=sys.stdin.buffer,
        context=session.context,
    )
    if json:
        for entry in found.entries:
            click.echo(safe_json(_as_json(entry)))
    elif sys.stdout.isatty():
        _show(session, found)
    else:
        click.echo(tab_separated(cells for entry in found.entries for cells in _cells(entry)), nl=bool(found.entries))
    for note in found.notes:
        session.terminal.info(note)
    if found.broken is not None:
        raise found.broken
    if not found.entries:
        session.terminal.info("the sources hold no rows")


def _as_json(entry: PreviewedRecord | ReplacedRow | Reject) -> dict[str, Any]:
    value = entry.as_json()
    return value if "type" in value else {"type": "reject", **value}


# -- for people ---------------------------------------------------------------------------------------------------


def _show(session: Invocation, found: Preview) -> None:
    console = session.terminal.console(stderr=False)
    for number, entry in enumerate(found.entries):
        if number:
            click.echo()
        for name, *cells in _summary(entry):
            for line in _wrapped(console, name, "  ".join(cells)):
                click.echo(line)
        if rows := [*_metadata(entry)]:
            for row in table_lines(_METADATA, rows, width=console.width):
                console.print(row, soft_wrap=True)


def _wrapped(console: Console, name: str, value: str) -> Iterator[str]:
    """Yield the lines of a value; a document is shortened, ids and numbers stay whole."""
    from rich.text import Text

    width = max(1, console.width - LABEL)
    lines = [line.plain.rstrip() for part in value.split("\n") for line in Text(safe(part)).wrap(console, width)]
    if name == "document" and len(lines) > DOCUMENT_LINES:
        mark = ellipsis()
        lines = [*lines[: DOCUMENT_LINES - 1], lines[DOCUMENT_LINES - 1][: -len(mark)] + mark]
    for number, line in enumerate(lines):
        yield f"{'' if number else name:<{LABEL}}{safe(line)}"


# -- for pipes ----------------------------------------------------------------------------------------------------


def _cells(entry: PreviewedRecord | ReplacedRow | Reject) -> Iterator[tuple[str, ...]]:
    yield from _summary(entry)
    for cells in _metadata(entry):
        yield ("metadata", *cells)


def _summary(entry: PreviewedRecord | ReplacedRow | Reject) -> Iterator[tuple[str, ...]]:
    """Yield the names and values of an outcome, all but the metadata."""
    from upsert_cli.load.preview import PreviewedRecord, ReplacedRow

    if isinstance(entry, PreviewedRecord):
        item = entry.document.item
        yield "source", f"{item.source}, row {item.row}"
        yield "id", entry.document.id
        yield "document", entry.document.text
        yield from _model_input(entry)
    elif isinstance(entry, ReplacedRow):
        yield "source", f"{entry.source}, row {entry.row}"
        yield "duplicate", f"a later row has its id {entry.object_id}, and is stored in its place"
    else:
        yield "source", f"{entry.source}, row {entry.row}"
        yield "rejected", f"{entry.stage.value}: {entry.detail}"


def _model_input(record: PreviewedRecord) -> Iterator[tuple[str, str]]:
    """Yield how much of the document the model reads."""
    if record.document.vector is not None:
        yield "vector", f"the item's own, {len(record.document.vector)} numbers; nothing is embedded"
    elif record.document.is_average:
        yield "vector", "the mean of the item's chunks"
    elif record.tokens is None:
        yield "tokens", "unknown"
    elif record.is_truncated:
        yield "tokens", f"more than {record.max_tokens}, so the model truncates the document; --split stores all of it"
    else:
        yield "tokens", f"{record.tokens} of {record.max_tokens}"


def _metadata(entry: PreviewedRecord | ReplacedRow | Reject) -> Iterator[tuple[str, str, str]]:
    """Yield key, type and value of the metadata of a record."""
    from upsert_cli.load.preview import PreviewedRecord

    if not isinstance(entry, PreviewedRecord):
        return
    for key, value in entry.metadata.items():
        kind = "list" if isinstance(value, list) else _TYPES[type(value)]
        if (before := entry.document.converted.get(key)) is not None:
            kind = f"{'JSON ' if before in _CONTAINERS else ''}{kind} of {before}"
        yield key, kind, value if isinstance(value, str) else stdlib_json.dumps(value, ensure_ascii=False)
