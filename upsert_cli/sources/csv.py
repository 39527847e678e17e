"""CSV and TSV: records under the names of a header, read from any byte on.

The standard library's parser takes only the lines that a record needs, so the offset after each record is known,
although fields may hold line breaks. A record is read only up to a limit, even if a quote is never closed.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from upsert_cli.errors import ItemError
from upsert_cli.sources.formats import Unsuitable, check_column_names
from upsert_cli.sources.item import MAX_ROW, Row, too_large
from upsert_cli.sources.json_text import not_utf8
from upsert_cli.sources.text_format import skip, skip_byte_order_mark, skip_line

OTHER_DELIMITERS = ";\t|"  # of files called `.csv`: a spreadsheet writes `;` where the comma is the decimal sign
SEPARATOR_LINE = re.compile(r"sep=.?", re.IGNORECASE)  # a first line with the delimiter, for Excel alone
RESCAN_BYTES = 32 << 20  # bytes of a file that may be read twice because a quote is never closed; bounds the time

_TOO_LARGE = "field larger"  # the beginning of the parser's message about a field beyond its limit
_QUOTED = re.compile(rf'(?<![^\r\n,{OTHER_DELIMITERS}])"(?:[^"]++|"")*+("?)')  # a quoted field and its closing quote


def rows(delimiter: str, file: BinaryIO, *, row: int, offset: int) -> Iterator[Row]:
    """Yield the records after the header, as objects with the names of the columns.

    The header of a file with commas may show another delimiter.

    Raises:
        OSError: The header cannot be used.
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
    """Yield the number of each record and the offset after it."""
    records = _Records(file, delimiter)
    return ((number, records.offset) for number, _ in enumerate(records, start=1))


class _Records:
    """The records of a file after its header; a record that cannot be read is an error in the stream."""

    def __init__(self, file: BinaryIO, delimiter: str) -> None:
        csv.field_size_limit(MAX_ROW)
        self.offset = skip_byte_order_mark(file)
        """The byte after the last record."""

        self._file = file
        self._again: deque[bytes] = deque()
        """Lines to read again, before those of the file."""

        self._rescanned = 0
        """Bytes that were read again because a quote is never closed."""

        self._begin()
        header = self._outside_quotes()
        self._refuse_separator_line()
        if delimiter == ",":
            delimiter = _delimiter_of(header, self._outside_quotes() if "," in header else "")
        self._put_back(0)
        self._delimiter = delimiter
        self._reader = self._new_reader()
        self.header = self._read_header()

    def _outside_quotes(self) -> str:
        """Return the next record without its quoted fields; its lines have to be put back."""
        text, is_quoted = "", False
        with suppress(csv.Error):
            for line in self._lines():
                # A name that goes on from the line before is quoted from the start of this line.
                open_line = f'"{line}' if is_quoted else line
                closing_quotes = _QUOTED.findall(open_line)
                is_quoted = "" in closing_quotes
                text += _QUOTED.sub("", open_line)
                if line.strip() and not is_quoted:
                    break
        return text

    def _refuse_separator_line(self) -> None:
        """Raise Unsuitable if the header is a line that only Excel reads."""
        if SEPARATOR_LINE.fullmatch(b"".join(self._record).decode(errors="replace").strip().strip('"')):
            raise Unsuitable(
                "its first line, `sep=`, is only for Excel",
                "`tail -n +2 FILE | upsert-cli run - --format FORMAT` loads the rest",
                is_usage=True,
            )

    def _read_header(self) -> list[str]:
        """Return the names of the columns; a column without a name is called `column1` by its position."""
        fields = next(self, [])
        if isinstance(fields, ItemError):
            raise OSError(f"its header: {fields.detail}")
        names = [name or f"column{position}" for position, name in enumerate(fields, start=1)]
        check_column_names(names)
        return names

    def go_to(self, offset: int) -> None:
        """Continue at the offset of a record."""
        left = offset - self.offset
        while left and self._again:  # lines that were read in search of the end of the header
            left -= len(self._again.popleft())
        skip(self._file, left)
        self.offset = offset

    def text(self) -> bytes | None:
        """Return the text of the last record, or None if the record is larger than a row may be."""
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
        """Continue after the first line of a broken record, since an open quote swallows good records."""
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
        """Yield the lines that the parser takes, and add each to the record."""
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


def _delimiter_of(header: str, first: str) -> str:
    """Return the delimiter of a file by its header and its first record, both without their quoted fields.

    A comma may be part of a name, as in `id;name, first`; then the first record tells which character divides both.
    """
    known = [one for one in f",{OTHER_DELIMITERS}" if one in header]
    if "," in known:
        known = [one for one in known if header.count(one) == first.count(one)]
    return max(known, key=header.count, default=",")


def _reason(text: str, *, lines: int) -> ItemError:
    """Return the error for a record, by the message of the parser."""
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
