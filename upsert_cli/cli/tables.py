"""Tables on stdout: aligned on a terminal, where only long texts are shortened; tab-separated and whole in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from upsert_cli.cli.terminal import Terminal
from upsert_cli.text import ellipsis, safe, tab_separated

if TYPE_CHECKING:
    from rich.text import Text

GAP = 2  # spaces between two columns
INDENT = 2  # spaces before the lines of a row that continue it


class Column(NamedTuple):
    """A column of a table; ids and numbers are always shown whole, so they have no `widths`."""

    title: str
    number: bool = False
    """Whether its cells are aligned to the right."""

    order: int = 0
    """Columns of a lower order are shortened before those of a higher one."""

    widths: tuple[int, ...] = ()
    """The widths that it may be shortened to, in steps such as `(11, 5)`; no column takes two before all take one."""

    keep: Literal["start", "end"] = "start"
    """The end of a shortened text that stays; the end of a path says more than its start."""


def print_table(terminal: Terminal, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print rows on stdout, below the titles of the columns."""
    if not sys.stdout.isatty():
        click.echo(tab_separated([[column.title for column in columns], *rows]))
        return
    console = terminal.console(stderr=False)
    for line in table_lines(columns, rows, width=console.width):
        # The terminal wraps longer lines itself, so that an id can be copied whole.
        console.print(line, soft_wrap=True)


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and their values on stdout, one pair per line, each value whole."""
    known = [(name, safe(str(value))) for name, value in pairs]
    if not sys.stdout.isatty():
        click.echo(tab_separated(known))
        return
    width = max((len(safe(name)) for name, _ in known), default=0)
    for name, value in known:
        click.echo(f"{safe(name):<{width}}  {value}")


def shown_time(moment: str, *, short: bool = False) -> str:
    """Return a time of the journal: local on a terminal, in UTC in a pipe; a short one has no year or no hours."""
    if not sys.stdout.isatty():
        return moment
    try:
        local = datetime.fromisoformat(moment).astimezone()
    except (ValueError, OverflowError):  # empty, or a record that somebody edited
        return moment
    if not short:
        return f"{local:%Y-%m-%d %H:%M:%S}"
    return f"{local:%b %d %H:%M}" if local.year == datetime.now().astimezone().year else f"{local:%b %d %Y}"


def table_lines(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, width: int) -> list[Text]:
    """Return the lines of a table for a terminal of `width` cells; a row that is still too wide takes several."""
    from rich.cells import cell_len
    from rich.text import Text

    cells = [[safe(cell) for cell in row] for row in rows]
    natural = [
        max(cell_len(text) for text in (column.title, *(row[index] for row in cells)))
        for index, column in enumerate(columns)
    ]
    header = [column.title for column in columns]
    layout = _layout(columns, natural, width)
    lines = []
    for row in (header, *cells):
        style = "bold" if row is header else ""
        for number, line_columns in enumerate(layout):
            shown = [_cell(row[index], columns[index], size) for index, size in line_columns.items()]
            line = " " * (INDENT if number else 0) + (" " * GAP).join(shown)
            lines.append(Text(line.rstrip(), style=style))
    return lines


def _layout(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[dict[int, int]]:
    """Return the columns on each line of a row, by their index, with the cells that each of them gets."""
    indexes = list(range(len(columns)))
    fitted = _fitted(columns, natural, indexes, width)
    if _total(fitted) <= width:
        return [fitted]
    # The widest column, usually an id, is the last one on its line.
    widest = max((index for index in indexes if not columns[index].widths), key=lambda index: natural[index])
    lines: list[dict[int, int]] = []
    line: list[int] = []
    for index in indexes:
        room = width - (INDENT if lines else 0)
        if line and (line[-1] == widest or _total(_fitted(columns, natural, [*line, index], room)) > room):
            lines.append(_fitted(columns, natural, line, room))
            line = []
        line.append(index)
    return [*lines, _fitted(columns, natural, line, width - INDENT)]


def _fitted(columns: Sequence[Column], natural: Sequence[int], indexes: Sequence[int], width: int) -> dict[int, int]:
    """Return the cells of each column, shortened by no more than is needed to fit into `width`."""
    sizes = {index: natural[index] for index in indexes}
    in_order = sorted((index for index in indexes if columns[index].widths), key=lambda index: columns[index].order)
    for step in range(max((len(columns[index].widths) for index in in_order), default=0)):
        for index in in_order:
            excess = _total(sizes) - width
            if excess > 0 and step < len(columns[index].widths):
                least = min(sizes[index], columns[index].widths[step])
                sizes[index] = max(least, sizes[index] - excess)
    return sizes


def _total(sizes: dict[int, int]) -> int:
    return sum(sizes.values()) + GAP * (len(sizes) - 1)


def _cell(text: str, column: Column, size: int) -> str:
    from rich.cells import cell_len

    shown = _shortened(text, size, keep=column.keep)
    padding = " " * (size - cell_len(shown))
    return padding + shown if column.number else shown + padding


def _shortened(text: str, size: int, *, keep: Literal["start", "end"]) -> str:
    """Return `text` in at most `size` cells, with an ellipsis if it is truncated."""
    from rich.cells import cell_len

    if cell_len(text) <= size:
        return text
    mark = ellipsis()
    room = max(0, size - cell_len(mark))
    kept = text[:room] if keep == "start" else text[len(text) - room :]
    while cell_len(kept) > room:  # wide characters take two cells
        kept = kept[:-1] if keep == "start" else kept[1:]
    return kept.rstrip() + mark if keep == "start" else mark + kept
