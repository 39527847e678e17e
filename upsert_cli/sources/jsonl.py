"""JSONL: one JSON value on each line, read from any byte on.

A line is read in one piece only up to a limit, so a file without line breaks costs no more memory than others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from upsert_cli.errors import ItemError
from upsert_cli.sources.compression import BUFFER, skip, skip_byte_order_mark
from upsert_cli.sources.item import MAX_ROW, Row, too_large
from upsert_cli.sources.json_text import parse

CHUNK = 1 << 20  # bytes in which lines are counted

_BLANK_LINE = re.compile(rb"\n[ \t\r\v\f]*+(?=\n)")


class Jsonl:
    """Implements `TextFormat` for lines of JSON; blank lines are numbered, but are not rows."""

    is_table = False
    has_json_texts = False

    def read(self, file: BinaryIO, *, row: int, offset: int) -> Iterator[Row]:
        """Yield the lines that are not blank, with their numbers."""
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
                yield Row(row, too_large(), offset)
            elif not line.isspace():
                try:
                    value = parse(line)
                except ItemError as error:
                    value = error if line.endswith(b"\n") else _truncated(error)
                yield Row(row, value, offset, line)

    def count(self, file: BinaryIO) -> int:
        """Count the lines that are not blank, which costs a fraction of reading them."""
        lines = 0
        skip_byte_order_mark(file)
        tail = b"\n"  # as if a line ended before the first, so that every line begins after a line break
        while chunk := file.read(CHUNK):
            text = tail + chunk
            complete = text.rfind(b"\n") + 1
            # The last line break stays for the next chunk: what follows it decides whether its line is blank.
            lines += _breaks_before_text(text[:complete])
            tail = text[complete - 1 :]
            tail = tail if len(tail) < CHUNK else _shortened(tail)
        return lines + bool(tail.strip())

    def boundaries(self, file: BinaryIO, *, rows: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield ends of lines, each with its line's number, without parsing anything."""
        begin = offset = skip_byte_order_mark(file)
        row = last = 0
        is_inside = False  # whether a line has begun that has not ended yet
        while chunk := file.read(CHUNK):
            done = 0
            while (end := chunk.find(b"\n", done) + 1) > 0:
                row += 1
                done = end
                if row - last >= rows or offset + done - begin >= size:
                    begin, last = offset + done, row
                    yield row, begin
            is_inside = done < len(chunk)
            offset += len(chunk)
        if is_inside or row > last:
            yield row + is_inside, offset


def skip_line(file: BinaryIO) -> int:
    """Read to the end of the line and return the bytes read."""
    skipped = 0
    while piece := file.readline(BUFFER):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _breaks_before_text(text: bytes) -> int:
    """Count the lines that are not blank in a text that begins and ends with a line break."""
    return text.count(b"\n") - 1 - sum(1 for _ in _BLANK_LINE.finditer(text))


def _shortened(tail: bytes) -> bytes:
    """Keep of a very long line only whether it is blank."""
    return b"\n." if tail.strip() else b"\n"


def _truncated(error: ItemError) -> ItemError:
    return ItemError(detail=f"{error.detail} (the last line, without a line break: is the file complete?)")
