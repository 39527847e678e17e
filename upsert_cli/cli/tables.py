"""Rows -> a table: drawn on a terminal, tab-separated in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import click

from upsert_cli.cli.terminal import Terminal
from upsert_cli.cli.text import safe, tab_separated

if TYPE_CHECKING:
    from rich.table import Table


def print_table(
    terminal: Terminal, header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()
) -> None:
    """Prints rows on stdout, never cut in a pipe.

    Args:
        terminal: Says whether there are colors.
        header: Titles of the columns.
        rows: As many cells each; any text.
        numbers: Titles of the columns that stand to the right.
    """
    if not sys.stdout.isatty():
        click.echo(tab_separated([header, *rows]))
        return
    terminal.console(stderr=False).print(drawn_table(header, rows, numbers=numbers))


def drawn_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> Table:
    """Returns a table for a terminal; see `print_table`."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in header:
        justify: Literal["left", "right"] = "right" if title in numbers else "left"
        # Only the last column may be broken: an id is there to be copied.
        table.add_column(title, overflow="fold", no_wrap=title != header[-1], justify=justify)
    for row in rows:
        table.add_row(*(Text(safe(cell)) for cell in row))
    return table
