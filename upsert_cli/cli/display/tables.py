"""Tables on stdout: aligned on a terminal, where only long texts are shortened; tab-separated and whole in a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn

import click

from upsert_cli.cli.display.terminal import Frame, Terminal
from upsert_cli.text import ellipsis, safe, tab_separated, wrapped

if TYPE_CHECKING:
    from rich.text import Text

GAP = 2  # spaces between two columns
MOST_WIDTHS = 3  # widths that a column may have
LONG_ID = 20  # cells, the length of a generated id; longer ids wrap before other columns disappear


class Column(NamedTuple):
    """A column of a table; ids and numbers are always shown whole, so they have no `widths`."""

    title: str
    number: bool = False
    """Whether its cells are aligned to the right."""

    order: int = 0
    """Columns with a lower order are shortened first."""

    widths: tuple[int, ...] = ()
    """The widths that it may be shortened to, in steps such as `(11, 5)`; no column takes two before all take one."""

    keep: Literal["start", "end"] = "start"
    """The end of a shortened text that stays, such as the last folders of a path."""


def print_table(terminal: Terminal, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print rows on stdout, below the titles of the columns."""
    if not sys.stdout.isatty():
        click.echo(tab_separated([[column.title for column in columns], *rows]))
        return
    console = terminal.console(stderr=False)
    for line in table_lines(columns, rows, width=console.width):
        # The terminal wraps longer lines itself, so that an id can be copied whole.
        console.print(line, soft_wrap=True)


def redraw_table(
    terminal: Terminal, columns: Sequence[Column], rows: Callable[[], Sequence[Sequence[str]]], *, seconds: float
) -> NoReturn:
    """Draw a table on the terminal, and draw it over itself every `seconds` with new rows."""
    found = rows()
    with Frame(terminal, lambda width: table_lines(columns, found, width=width), stderr=False) as frame:
        while True:
            frame.draw()
            time.sleep(seconds)
            found = rows()


def print_pairs(pairs: Iterable[tuple[str, object]], *, prose: Collection[str] = ()) -> None:
    """Print names and values on stdout, one pair per line; a terminal gets the values named in `prose` wrapped."""
    known = [(name, safe(str(value))) for name, value in pairs]
    if not sys.stdout.isatty():
        click.echo(tab_separated(known))
        return
    import shutil  # late: it loads all kinds of archives

    width = max((len(safe(name)) for name, _ in known), default=0)
    columns = shutil.get_terminal_size().columns
    for name, value in known:
        text = wrapped(" " * width + value, columns - GAP)[width:] if name in prose else value
        click.echo(f"{safe(name):<{width}}{' ' * GAP}{text}")


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
    """Return the lines of a table for a terminal of `width` cells; a row with a longer id than fits takes several."""
    from rich.cells import cell_len
    from rich.text import Text

    cells = [[column.title for column in columns], *([safe(cell) for cell in row] for row in rows)]
    sizes = _fitted(columns, [max(map(cell_len, column)) for column in zip(*cells, strict=True)], width)
    styled = [(row, "" if number else "bold") for number, row in enumerate(cells)]
    return [Text(line, style=style) for row, style in styled for line in _lines(row, columns, sizes, width)]


def _fitted(columns: Sequence[Column], natural: Sequence[int], width: int) -> list[int]:
    """Return the cells of each column, shortened by no more than is needed to fit into `width`."""
    sizes = list(natural)
    for index, least in _shortenings(columns, natural):
        excess = sum(sizes) + GAP * (len(sizes) - 1) - width
        if excess > 0:
            sizes[index] = max(min(sizes[index], least), sizes[index] - excess)
    return sizes


def _shortenings(columns: Sequence[Column], natural: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the indexes of columns, each with the cells that it may be shortened to, in the order of preference.

    The cells of a column without `widths` are shown whole even if they are longer than the column. The rest of their
    row then goes on the next line.
    """
    indexes = range(len(columns))
    by_order = sorted(indexes, key=lambda index: columns[index].order)
    rounds = [
        [(index, columns[index].widths[number]) for index in by_order if number < len(columns[index].widths)]
        for number in range(MOST_WIDTHS)
    ]
    whole = [index for index in indexes if not columns[index].widths]
    yield from rounds[0]
    yield from ((index, max(len(columns[index].title), LONG_ID)) for index in whole)
    yield from chain.from_iterable(rounds[1:])
    yield from ((index, len(columns[index].title)) for index in sorted(whole, key=lambda index: -natural[index]))


def _lines(row: Sequence[str], columns: Sequence[Column], sizes: Sequence[int], width: int) -> Iterator[str]:
    """Yield the lines of a row; a cell that would cover the one before it begins the next line."""
    from rich.cells import cell_len

    line, start = "", 0
    for text, column, size in zip(row, columns, sizes, strict=True):
        cell = _cell(text, column, size)
        begin = max(0, min(start, width - cell_len(cell)))
        if line and cell_len(line) > begin - GAP:
            yield line.rstrip()
            line = ""
        line += " " * (begin - cell_len(line)) + cell
        start += size + GAP
    yield line.rstrip()


def _cell(text: str, column: Column, size: int) -> str:
    from rich.cells import cell_len

    shown = _shortened(text, size, keep=column.keep) if column.widths else text
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
