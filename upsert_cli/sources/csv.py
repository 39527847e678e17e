"""CSV and TSV: records under the names of a header, read from any byte on.

The standard library's parser takes just the lines that a record needs, so the offset after each record is known
although its fields may hold line breaks. A record is read only up to a limit, even if a quote is left open.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from upsert_cli.errors import ItemError
from upsert_cli.sources.file_kinds import Unsuitable
from upsert_cli.sources.formats import check_column_names
from upsert_cli.sources.item import MAX_ROW, Row, too_large
from upsert_cli.sources.json_faults import not_utf8
from upsert_cli.sources.text_format import skip, skip_byte_order_mark, skip_line

OTHER_DELIMITERS = ";\t|"  # that a `.csv` may have: a spreadsheet writes `;` where the comma is the decimal sign
SEPARATOR_LINE = re.compile(r"sep=.?", re.IGNORECASE)  # a first line that tells Excel the delimiter
RESCAN_BYTES = 32 << 20  # bytes of a file that may be read twice because a quote was left open; bounds the time

_TOO_LARGE = "field larger"  # also begins the words of the parser for a field beyond its limit
_QUOTED = re.compile(rf'(?<![^\r\n,{OTHER_DELIMITERS}])"(?:[^"]++|"")*+("?)')  # a field, or its beginning


def rows(delimiter: str, file: BinaryIO, *, row: int, offset: int) -> Iterator[Row]:
    """Yield the records by the names of their columns; the one after the header is the first.

    Where the delimiter is a comma, the header may show another one; OSError: it cannot be used.
    """
    records = _Records(file, delimiter)
    if offset:
        records.go_to(offset)
    names = records.header
    for number, fields in enumerate(records, start=row + 1):
        if isinstance(fields, ItemError):
            yield Row(number, fields, records.offset, records.text())
        elif len(fields) != len(names):
            error = ItemError(detail=f"{len(fields)} fields, but the header has {len(names)}")
            yield Row(number, error, records.offset, records.text())
        else:
            yield Row(number, dict(zip(names, fields, strict=True)), records.offset)


def ends(delimiter: str, file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield the number of each record and the offset after it; finding them is to read the records."""
    records = _Records(file, delimiter)
    return ((number, records.offset) for number, _ in enumerate(records, start=1))


class _Records:
    """The records of a file after its header; a record that cannot be read is an error in the stream."""

    def __init__(self, file: BinaryIO, delimiter: str) -> None:
        csv.field_size_limit(MAX_ROW)
        self.offset = skip_byte_order_mark(file)
        """Of the byte after the last record."""

        self._file = file
        self._again: deque[bytes] = deque()
        """Lines to be read again, before those of the file."""

        self._rescanned = 0
        self._begin()
        outside_quotes = self._look_at_header()
        if delimiter == "," and "," not in outside_quotes:
            delimiter = max(",", *OTHER_DELIMITERS, key=outside_quotes.count)
        self._delimiter = delimiter
        self._reader = self._new_reader()
        self.header = self._read_header()

    def _look_at_header(self) -> str:
        """Return the header without its quoted names; it may take several lines, which are read again."""
        text, is_quoted = "", False
        with suppress(csv.Error):
            for line in self._lines():
                open_line = f'"{line}' if is_quoted else line
                is_quoted = "" in _QUOTED.findall(open_line)
                text += _QUOTED.sub("", open_line)
                if line.strip() and not is_quoted:
                    break
        if SEPARATOR_LINE.fullmatch(b"".join(self._record).decode(errors="replace").strip().strip('"')):
            raise Unsuitable(
                "its first line, `sep=`, is only for Excel",
                "`tail -n +2 FILE | upsert-cli run - --format FORMAT` loads the rest",
                is_usage=True,
            )
        self._put_back(0)
        return text

    def _read_header(self) -> list[str]:
        """Read the names of the columns; one without a name is called `column1` by its position."""
        fields = next(self, [])
        if isinstance(fields, ItemError):
            raise OSError(f"its header: {fields.detail}")
        names = [name or f"column{position}" for position, name in enumerate(fields, start=1)]
        check_column_names(names)
        return names

    def go_to(self, offset: int) -> None:
        """Continue at the offset of a record."""
        left = offset - self.offset
        while left and self._again:  # what was read of the file in search of the header's end
            left -= len(self._again.popleft())
        skip(self._file, left)
        self.offset = offset

    def text(self) -> bytes | None:
        """Return the text of the last record, or None if it is longer than a record may be."""
        return b"".join(self._record) if self._size <= MAX_ROW else None

    def __iter__(self) -> Iterator[list[str] | ItemError]:
        return self

    def __next__(self) -> list[str] | ItemError:
        fields = None
        while not fields:  # blank lines are not records
            self._begin()
            try:
                fields = next(self._reader)
            except csv.Error as error:
                reason = _reason(str(error), lines=len(self._record))
                self._give_up()
                self.offset += self._size
                return reason
            self.offset += self._size
        return fields if self._fault is None else ItemError(detail=self._fault)

    def _give_up(self) -> None:
        """Continue after the first line of a broken record, since a quote left open swallows good records."""
        if len(self._record) > 1 and self._rescanned + self._size <= RESCAN_BYTES:
            self._rescanned += self._put_back(1)
        elif not self._record[-1].endswith(b"\n"):
            self._size += skip_line(self._file)
        self._reader = self._new_reader()  # an error ends the generator of lines

    # -- lines ----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin a record."""
        self._record: list[bytes] = []
        """Its lines so far."""

        self._size = 0
        self._fault: str | None = None

    def _new_reader(self) -> Iterator[list[str]]:
        return csv.reader(self._lines(), delimiter=self._delimiter, strict=True)

    def _lines(self) -> Iterator[str]:
        """Yield the lines as the parser takes them, and add each to the record."""
        while line := self._again.popleft() if self._again else self._file.readline(MAX_ROW + 1):
            self._record.append(line)
            self._size += len(line)
            if self._size > MAX_ROW:
                raise csv.Error(_TOO_LARGE)
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                self._fault = self._fault or not_utf8(line, error)
                yield line.decode(errors="replace")

    def _put_back(self, kept: int) -> int:
        """Put back the lines after the first `kept` ones of the record, and return their bytes."""
        again = self._record[kept:]
        size = sum(map(len, again))
        self._again.extendleft(reversed(again))
        self._record, self._size = self._record[:kept], self._size - size
        return size


def _reason(text: str, *, lines: int) -> ItemError:
    """Return the error for a record by the words of the parser."""
    if _TOO_LARGE in text and lines == 1:
        return too_large()
    if _TOO_LARGE in text or "unexpected end" in text:
        detail = "a quote that opens in this row is never closed"
    elif "expected after" in text:
        detail = "a quote inside a quoted field is not doubled, or one that opens in this row is never closed"
    elif "new-line" in text:
        detail = "a carriage return without a line feed, outside quotes; `tr '\\r' '\\n'` corrects old line ends"
    else:
        detail = f"not CSV: {text}"
    return ItemError(detail=detail)
