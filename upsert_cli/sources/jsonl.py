"""JSONL: one JSON value on each line, read from any byte on, and written.

A line is kept in memory only up to a limit, so a file without line breaks costs no more memory than others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import BinaryIO

from upsert_cli.errors import ItemError
from upsert_cli.sources.compression import compressing
from upsert_cli.sources.formats import Compression
from upsert_cli.sources.item import MAX_ROW, Row, WrittenItem, too_large
from upsert_cli.sources.json_text import parse
from upsert_cli.sources.text_format import skip, skip_byte_order_mark, skip_line


def rows(file: BinaryIO, *, row: int, offset: int) -> Iterator[Row]:
    """Yield the lines that are not blank, with their numbers."""
    for number, end, line in _lines(file, row=row, offset=offset):
        if line is None:
            yield Row(number, too_large(), end)
            continue
        try:
            value = parse(line)
        except ItemError as error:
            value = error if line.endswith(b"\n") else _truncated(error)
        yield Row(number, value, end, line)


def ends(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield the number of each line that is not blank and the offset after it."""
    return ((number, end) for number, end, _ in _lines(file, row=0, offset=0))


def _lines(file: BinaryIO, *, row: int, offset: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield the number of each line that is not blank, the offset after it, and its text, or None for a long line."""
    if offset:
        skip(file, offset)
    else:
        offset = skip_byte_order_mark(file)
    while line := file.readline(MAX_ROW + 1):
        row += 1
        offset += len(line)
        if len(line) > MAX_ROW and not line.endswith(b"\n"):
            del line
            offset += skip_line(file)
            yield row, offset, None
        elif not line.isspace():
            yield row, offset, line


def _truncated(error: ItemError) -> ItemError:
    return ItemError(detail=f"{error.detail} (the last line, without a line break: is the file complete?)")


@contextmanager
def writing_items(
    file: BinaryIO, compression: Compression | None
) -> Iterator[Callable[[Sequence[WrittenItem]], object]]:
    """Yield a function that writes items, each on a line."""
    with nullcontext(file) if compression is None else compressing(file, compression) as stream:
        yield lambda items: stream.write(b"".join(item.line() for item in items))
