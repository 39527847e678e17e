"""The command `preview`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.tables import Column, table_lines
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.load_options import parsed_options, preview_options, refuse_contradictions
from upsert_cli.text import ellipsis, safe, safe_json, tab_separated

if TYPE_CHECKING:
    from rich.console import Console

_Entry: TypeAlias = dict[str, Any]  # the outcome of a row, as --json prints it

DOCUMENT_LINES = 5  # of a document on a terminal; enough to recognise it
LABEL = 10  # cells before a value on a terminal

_METADATA = (Column("METADATA"), Column("TYPE"), Column("VALUE", widths=(40, 25)))
_CONTAINERS = ("a list", "an object", "a map that repeats a key")  # become JSON, other values just text
_TYPES = {str: "text", bool: "boolean", int: "integer", float: "float"}


@click.command(cls=Command)
@preview_options()
def preview(session: Session, *, sources: tuple[str, ...], limit: int, model: str, json: bool, **options: Any) -> None:
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
        parsed_options(options, verbose=session.terminal.verbose),
        model_name=model,
        rows=limit,
        stdin=sys.stdin.buffer,
        context=session,
    )
    entries = found.entries
    if json:
        for entry in entries:
            session.print_json(entry)
    elif sys.stdout.isatty():
        _show(session, entries)
    elif entries:
        click.echo(tab_separated(cells for entry in entries for cells in (*_summary(entry), *_metadata(entry))))
    for note in found.notes:
        session.info(note)
    if found.broken is not None:
        raise found.broken
    if not entries:
        session.info("the sources hold no rows")


def _show(session: Session, entries: Sequence[_Entry]) -> None:
    """Show the outcomes on a terminal."""
    console = session.terminal.console(stderr=False)
    for number, entry in enumerate(entries):
        if number:
            click.echo()
        for name, *cells in _summary(entry):
            for line in _wrapped(console, name, "  ".join(cells)):
                click.echo(line)
        if rows := [cells for _, *cells in _metadata(entry)]:
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


def _summary(entry: _Entry) -> Iterator[tuple[str, ...]]:
    """Yield the names and values of an outcome, all but the metadata."""
    yield "source", f"{entry['source']}, row {entry['row']}"
    match entry["type"]:
        case "record":
            yield "id", entry["id"]
            yield "document", entry["document"]
            yield _model_input(entry)
        case "duplicate":
            yield "duplicate", f"a later row has its id {entry['object_id']}, and is stored in its place"
        case _:
            yield "rejected", f"{entry['failure_stage']}: {entry['detail']}"


def _model_input(record: _Entry) -> tuple[str, str]:
    """Return how much of the document the model reads."""
    tokens, limit, truncated = record["tokens"], record["max_tokens"], record["truncated"]
    if record["vector"] is not None:
        return "vector", f"the item's own, {len(record['vector'])} numbers; nothing is embedded"
    if tokens is None and truncated is False:
        return "vector", "the mean of the item's chunks"
    if tokens is None:
        return "tokens", "unknown"
    if truncated:
        return "tokens", f"more than {limit}, so the model truncates the document; --split stores all of it"
    return "tokens", f"{tokens} of {limit}"


def _metadata(entry: _Entry) -> Iterator[tuple[str, str, str, str]]:
    """Yield key, type and value of the metadata of a record, each after the word `metadata`."""
    converted = {conversion["field"]: conversion["kind"] for conversion in entry.get("converted", ())}
    for key, value in entry.get("metadata", {}).items():
        kind = "list" if isinstance(value, list) else _TYPES[type(value)]
        if key in converted:
            kind = f"{'JSON ' if converted[key] in _CONTAINERS else ''}{kind} of {converted[key]}"
        yield "metadata", key, kind, value if isinstance(value, str) else safe_json(value)
