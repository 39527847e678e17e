"""Rows -> a table: aligned on a terminal, where only long texts are shortened; tab-separated and whole in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from upsert_cli.cli.terminal import Terminal
from upsert_cli.text import ellipsis, safe, tab_separated

if TYPE_CHECKING:
    from rich.text import Text

GAP = 2  # spaces between two columns
INDENT = 2  # spaces before the lines of a row that continue it


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table; ids and numbers are always shown whole, so these have no `widths`."""

    title: str
    number: bool = False
    """Whether its cells are aligned to the right."""

    order: int = 0
    """Columns of a lower order are shortened before those of a higher one."""

    widths: tuple[int, ...] = ()
    """The cells that it may be shortened to, in steps: `(11, 5)`. All columns take a step before one takes the next."""

    keep: Literal["start", "end"] = "start"
    """Which end of a shortened text stays; the end of a path says more than its start."""


def print_table(terminal: Terminal, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print rows on stdout, below the titles of their columns."""
    if not sys.stdout.isatty():
        click.echo(tab_separated([[column.title for column in columns], *rows]))
        return
    console = terminal.console(stderr=False)
    for line in table_lines(columns, rows, width=console.width):
        # The terminal wraps what is longer than a line, so that an id can still be copied whole.
        console.print(line, soft_wrap=True)


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and their values on stdout, one pair a line, each value whole."""
    known = [(name, safe(str(value))) for name, value in pairs]
    if not sys.stdout.isatty():
        click.echo(tab_separated(known))
        return
    width = max((len(safe(name)) for name, _ in known), default=0)
    for name, value in known:
        click.echo(f"{safe(name):<{width}}  {value}")


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int) -> list[Text]:
    """Return the lines of a table for a terminal of `width` cells.

    Where even the shortest form of a row is too wide, it takes several lines.
    """
    from rich.cells import cell_len
    from rich.text import Text

    cells = [[safe(cell) for cell in row] for row in rows]
    natural = [
        max(cell_len(text) for text in (column.title, *(row[place] for row in cells)))
        for place, column in enumerate(columns)
    ]
    header = [column.title for column in columns]
    layout = _layout(columns, natural, width)
    lines = []
    for row in (header, *cells):
        style = "bold" if row is header else ""
        for number, places in enumerate(layout):
            shown = [_cell(row[place], columns[place], size) for place, size in places.items()]
            line = " " * (INDENT if number else 0) + (" " * GAP).join(shown)
            lines.append(Text(line.rstrip(), style=style))
    return lines


def _layout(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[dict[int, int]]:
    """Return, for each line of a row, its columns by their place, and the cells that each of them gets."""
    places = list(range(len(columns)))
    fitted = _fitted(columns, natural, places, width)
    if _total(fitted) <= width:
        return [fitted]
    # The column that takes the most room, an id as a rule, is the last one on its line.
    widest = max((place for place in places if not columns[place].widths), key=lambda place: natural[place])
    lines: list[dict[int, int]] = []
    line: list[int] = []
    for place in places:
        room = width - (INDENT if lines else 0)
        if line and (line[-1] == widest or _total(_fitted(columns, natural, [*line, place], room)) > room):
            lines.append(_fitted(columns, natural, line, room))
            line = []
        line.append(place)
    return [*lines, _fitted(columns, natural, line, width - INDENT)]


def _fitted(columns: Sequence[Column], natural: Sequence[int], places: Sequence[int], width: int) -> dict[int, int]:
    """Return the cells of each column, none shortened by more than is needed to fit them into `width`."""
    sizes = {place: natural[place] for place in places}
    in_order = sorted((place for place in places if columns[place].widths), key=lambda place: columns[place].order)
    for step in range(max((len(columns[place].widths) for place in in_order), default=0)):
        for place in in_order:
            excess = _total(sizes) - width
            if excess > 0 and step < len(columns[place].widths):
                least = min(sizes[place], columns[place].widths[step])
                sizes[place] = max(least, sizes[place] - excess)
    return sizes


def _total(sizes: dict[int, int]) -> int:
    return sum(sizes.values()) + GAP * (len(sizes) - 1)


def _cell(text: str, column: Column, size: int) -> str:
    from rich.cells import cell_len

    shown = _shortened(text, size, keep=column.keep)
    padding = " " * (size - cell_len(shown))
    return padding + shown if column.number else shown + padding


def _shortened(text: str, size: int, *, keep: Literal["start", "end"]) -> str:
    """Return `text` in at most `size` cells, with an ellipsis for what is left out."""
    from rich.cells import cell_len

    if cell_len(text) <= size:
        return text
    mark = ellipsis()
    room = max(0, size - cell_len(mark))
    kept = text[:room] if keep == "start" else text[len(text) - room :]
    while cell_len(kept) > room:  # of wide characters, half as many fit
        kept = kept[:-1] if keep == "start" else kept[1:]
    return kept.rstrip() + mark if keep == "start" else mark + kept
