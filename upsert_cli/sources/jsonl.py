"""A JSONL file -> its values, line by line, from any byte on.

A line is read in one piece only up to a limit, so a file without line breaks costs no more memory than others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.compression import BUFFER, skip, skip_byte_order_mark
from upsert_cli.sources.item import Row
from upsert_cli.sources.json_text import parse

MAX_LINE = 8 << 20  # bytes without the line break; longer items are rejected (design: at any length, bounded memory)
CHUNK = 1 << 20  # bytes in which lines are counted

_BLANK_LINE = re.compile(rb"\n[ \t\r\v\f]*+(?=\n)")


def read_lines(file: BinaryIO, *, row: int, offset: int) -> Iterator[Row]:
    """Yields the lines of an open file that are not blank, with their numbers; `formats.Reader` says the rest."""
    if offset:
        skip(file, offset)
    else:
        offset = skip_byte_order_mark(file)
    while line := file.readline(MAX_LINE + 1):
        row += 1
        offset += len(line)
        if len(line) > MAX_LINE and not line.endswith(b"\n"):
            del line
            offset += skip_line(file)
            yield Row(row, too_long(), offset)
        elif not line.isspace():
            try:
                value = parse(line)
            except ItemError as error:
                value = error if line.endswith(b"\n") else _cut_short(error)
            yield Row(row, value, offset, line)


def count_lines(file: BinaryIO) -> int:
    """Counts the lines that are not blank, which costs a fraction of reading them.

    Raises:
        OSError: The file cannot be read.
    """
    lines = 0
    skip_byte_order_mark(file)
    tail = b"\n"  # as if a line ended before the first, so that every line begins behind a line break
    while chunk := file.read(CHUNK):
        text = tail + chunk
        complete = text.rfind(b"\n") + 1
        # The last line break stays for the next chunk: what follows it decides whether its line is blank.
        lines += _breaks_before_text(text[:complete])
        tail = text[complete - 1 :]
        tail = tail if len(tail) < CHUNK else _shortened(tail)
    return lines + bool(tail.strip())


def cut_lines(file: BinaryIO, *, rows: int, size: int) -> Iterator[tuple[int, int]]:
    """Yields places at which `read_lines` may begin, with the number of the line before: without parsing anything.

    Args:
        file: At its first byte.
        rows: Lines from one place to the next at most.
        size: Bytes from one place to the next, but for a line that alone has more.

    Yields:
        Number of the line that ends there, offset of the next; the last one is the end of the file.
    """
    begin = offset = skip_byte_order_mark(file)
    row = last = 0
    is_inside = False  # whether a line has begun that has not ended yet
    while chunk := file.read(CHUNK):
        place = 0
        while (end := chunk.find(b"\n", place) + 1) > 0:
            row += 1
            place = end
            if row - last >= rows or offset + place - begin >= size:
                begin, last = offset + place, row
                yield row, begin
        is_inside = place < len(chunk)
        offset += len(chunk)
    if is_inside or row > last:
        yield row + is_inside, offset


def _breaks_before_text(text: bytes) -> int:
    """Counts the lines in a text that begins and ends with a line break."""
    return text.count(b"\n") - 1 - sum(1 for _ in _BLANK_LINE.finditer(text))


def _shortened(tail: bytes) -> bytes:
    """Keeps of a very long line only whether it is blank."""
    return b"\n." if tail.strip() else b"\n"


def skip_line(file: BinaryIO) -> int:
    """Reads to the end of the line and returns how many bytes that were."""
    skipped = 0
    while piece := file.readline(BUFFER):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def too_long() -> ItemError:
    """Returns what is wrong with a row that is not read in one piece."""
    detail = f"the row is longer than {MAX_LINE >> 20} MiB, the limit; divide its text into several items"
    return ItemError(stage=Stage.READING, detail=detail)


def _cut_short(error: ItemError) -> ItemError:
    return ItemError(
        stage=error.stage, detail=f"{error.detail} (the last line, without a line break: is the file whole?)"
    )
