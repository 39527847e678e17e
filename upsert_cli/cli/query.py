"""The command `query`."""

from __future__ import annotations

import codecs
import sys
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from upsert_cli.cli.display.invocation import Invocation
from upsert_cli.cli.display.tables import Column, print_table
from upsert_cli.cli.options.completions import files
from upsert_cli.cli.options.help_format import SectionedCommand
from upsert_cli.cli.options.option import all_of, common_options, json_option, option, typed_text
from upsert_cli.cli.options.param_types import Filter, Integer
from upsert_cli.cli.options.target_options import QUERY_MODEL_OPTIONS, chroma_option, model_options
from upsert_cli.errors import ItemError
from upsert_cli.limits import require_resources
from upsert_cli.text import safe_json

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from upsert_cli.verify.query import Nearest

    VectorType: TypeAlias = click.ParamType[array[float]]
else:
    VectorType = click.ParamType  # takes no type argument at run time before Click 8.4

MAX_RECORDS = 1_000
MAX_VECTOR_BYTES = 8 << 20  # bytes of JSON; the limit of a line of JSONL

_COLUMNS = (Column("ID"), Column("DISTANCE", number=True), Column("DOCUMENT", widths=(60, 20)))


_A_VECTOR = "a vector is a JSON list of numbers, such as '[0.12, -3.4]'"


class Vector(VectorType):
    """A vector as a JSON list: typed, in a file, or on standard input."""

    name = "file|json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> array[float]:
        """Return the vector."""
        from upsert_cli.documents.payload import checked_vector  # late: the help does not wait for it
        from upsert_cli.sources.json_text import parse_plain

        text, name = self._read(value)
        try:
            return checked_vector(parse_plain(text.removeprefix(codecs.BOM_UTF8)), name)
        except ValueError as error:
            self.fail(f"{name} is not JSON ({error}); {_A_VECTOR}")
        except ItemError as error:
            self.fail(f"{error}; {_A_VECTOR}")

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell offer files."""
        return files(ctx, param, incomplete)

    def _read(self, value: str) -> tuple[bytes, str]:
        """Return the JSON text and its name."""
        if value.lstrip().startswith("["):
            return value.encode(), "the vector"
        try:
            if value == "-":
                return sys.stdin.buffer.read(MAX_VECTOR_BYTES), "standard input"
            with Path(value).open("rb") as file:
                return file.read(MAX_VECTOR_BYTES), value
        except OSError as error:
            self.fail(f"{value!r} cannot be read ({error.strerror}); name a file, or give a JSON list")


@click.command(cls=SectionedCommand)
@click.argument(
    "text", metavar="[TEXT]", required=False, callback=lambda ctx, param, value: typed_text(value, ctx, param)
)
@option("--vector", type=Vector(), metavar="FILE|JSON", help="Search by a vector, not a text.")
@option("-n", "rows", type=Integer(1, MAX_RECORDS), default=5, metavar="N", help="Find N records.")
@chroma_option()
@option("--collection", default="default", metavar="NAME", help="The collection to search.")
@option("--where", type=Filter(), metavar="JSON", help='A filter, such as \'{"year": {"$gte": 2024}}\'.')
@all_of(QUERY_MODEL_OPTIONS)
@json_option("Print the records whole, as JSON.")
@common_options
def query(
    session: Invocation,
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
    from upsert_cli.verify.expected import Subject  # late: other commands look at the options of this one
    from upsert_cli.verify.query import nearest

    options = model_options(**files)
    require_resources()
    subject = Subject.of_collection(session.journal, chroma, collection, options, model=model)
    asked = vector if text is None else text
    assert asked is not None  # noqa: S101  # one of them is given
    found = nearest(subject, asked, rows=rows, where=where or None, context=session.context)
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
