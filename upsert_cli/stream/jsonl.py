"""A JSONL file -> its values, line by line, from any byte on.

A line is read in one piece only up to a limit, so a file without line breaks costs no more memory than others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from upsert_cli.errors import ItemError, Stage
from upsert_cli.stream.json_text import parse

MAX_LINE = 8 << 20  # bytes without the line break; longer items are rejected (design: at any length, bounded memory)
BUFFER = 256 << 10  # bytes; with Python's default of 8 KiB, reading lines costs three times the CPU
CHUNK = 1 << 20  # bytes in which lines are counted
SHOWN_LINE = 10_000  # characters of a line that cannot be parsed, which its reject keeps so that it can be mended
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_BLANK_LINE = re.compile(rb"\n[ \t\r\v\f]*+(?=\n)")


def read_lines(
    path: Path,
    *,
    row: int,
    offset: int,
    fields: Collection[str] | None,  # noqa: ARG001  # a line is parsed as a whole
) -> Iterator[tuple[int, object, int]]:
    """Yields the lines that are not blank, with their numbers; `formats.Reader` says the rest."""
    with path.open("rb", buffering=BUFFER) as file:
        file.seek(offset)
        if offset == 0:
            offset = _skip_byte_order_mark(file)
        while line := file.readline(MAX_LINE + 1):
            row += 1
            offset += len(line)
            if len(line) > MAX_LINE and not line.endswith(b"\n"):
                del line
                offset += _skip_line(file)
                yield row, _too_long(), offset
            elif not line.isspace():
                try:
                    value = parse(line)
                except ItemError as error:
                    error.line = _shown(line)
                    value = error
                yield row, value, offset


def _shown(line: bytes) -> str:
    r"""Returns a line, or its beginning, as text; bytes that are not UTF-8 become `\xff`."""
    return line[: 4 * SHOWN_LINE].decode("utf-8", "backslashreplace").rstrip("\r\n")[:SHOWN_LINE]


def count_lines(path: Path) -> int:
    """Counts the lines that are not blank, which costs a fraction of reading them.

    Raises:
        OSError: The file cannot be read.
    """
    lines = 0
    with path.open("rb", buffering=0) as file:
        _skip_byte_order_mark(file)
        tail = b"\n"  # as if a line ended before the first, so that every line begins behind a line break
        while chunk := file.read(CHUNK):
            text = tail + chunk
            complete = text.rfind(b"\n") + 1
            # The last line break stays for the next chunk: what follows it decides whether its line is blank.
            lines += _breaks_before_text(text[:complete])
            tail = text[complete - 1 :]
            tail = tail if len(tail) < CHUNK else _shortened(tail)
    return lines + bool(tail.strip())


def _breaks_before_text(text: bytes) -> int:
    """Counts the lines in a text that begins and ends with a line break."""
    return text.count(b"\n") - 1 - sum(1 for _ in _BLANK_LINE.finditer(text))


def _shortened(tail: bytes) -> bytes:
    """Keeps of a very long line only whether it is blank."""
    return b"\n." if tail.strip() else b"\n"


def _skip_byte_order_mark(file: BinaryIO) -> int:
    """Some editors write the mark at the start of a file, where it has no meaning."""
    if file.read(len(BYTE_ORDER_MARK)) == BYTE_ORDER_MARK:
        return len(BYTE_ORDER_MARK)
    file.seek(0)
    return 0


def _skip_line(file: BinaryIO) -> int:
    """Reads to the end of the line and returns how many bytes that were."""
    skipped = 0
    while piece := file.readline(BUFFER):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _too_long() -> ItemError:
    return ItemError(stage=Stage.READING, detail=f"the line is longer than {MAX_LINE >> 20} MiB")
