"""A CSV or TSV file -> its rows under the names of its header, from any byte on.

The standard library's parser takes just the lines that a record needs, so the bytes behind each record are known
although its fields may hold line breaks; and a record is read only up to a limit, whatever a quote leaves open.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import BinaryIO

from upsert_cli.errors import ItemError, Stage
from upsert_cli.sources.compression import skip, skip_byte_order_mark
from upsert_cli.sources.foreign import Unsuitable
from upsert_cli.sources.item import Row
from upsert_cli.sources.json_text import not_utf8
from upsert_cli.sources.jsonl import MAX_LINE, skip_line, too_long

OTHER_DELIMITERS = ";\t|"  # that a `.csv` may have: a spreadsheet writes `;` where the comma is the decimal sign
SEPARATOR_LINE = re.compile(r"sep=.?", re.IGNORECASE)  # a first line that tells Excel the delimiter
RESCAN_BYTES = 32 << 20  # bytes of a file that may be read twice, because a quote was left open; bounds the time


def read_records(file: BinaryIO, *, row: int, offset: int, delimiter: str) -> Iterator[Row]:
    """Yields the records of an open file behind its header, numbered from 1; `formats.Reader` says the rest.

    Raises:
        OSError: The header cannot be used.
    """
    records = _Records(file, delimiter)
    names = records.header()
    if offset:
        records.go_to(offset)
    for fields in records:
        row += 1
        value = _named(names, fields) if isinstance(fields, list) else fields
        yield Row(row, value, records.offset, None if isinstance(value, dict) else records.text())


def count_records(file: BinaryIO, *, delimiter: str) -> int:
    """Counts the records behind the header, which is to read them; raises OSError as `read_records` does."""
    records = _Records(file, delimiter)
    records.header()
    return sum(1 for _ in records)


def cut_records(file: BinaryIO, *, rows: int, size: int, delimiter: str) -> Iterator[tuple[int, int]]:
    """Yields places at which `read_records` may begin, as `jsonl.cut_lines` does; finding them is to read the records.

    Raises:
        OSError: The header cannot be used.
    """
    records = _Records(file, delimiter)
    records.header()
    begin = records.offset
    row = last = 0
    for row, _ in enumerate(records, start=1):  # the last one is needed
        if row - last >= rows or records.offset - begin >= size:
            begin, last = records.offset, row
            yield row, begin
    if row > last:
        yield row, records.offset


def _named(names: Sequence[str], fields: list[str]) -> dict[str, object] | ItemError:
    if len(fields) != len(names):
        return _fault(f"{len(fields)} fields, and the header has {len(names)}")
    return dict(zip(names, fields, strict=True))


class _TooLong(Exception):
    """Raised when a record has no end within the limit."""


class _Records:
    """The records of a file; those that cannot be read are errors in their place."""

    def __init__(self, file: BinaryIO, delimiter: str) -> None:
        csv.field_size_limit(MAX_LINE)
        self.offset = skip_byte_order_mark(file)
        self._file = file
        self._lines = _Lines(file)
        self._delimiter = delimiter
        self._rescanned = 0
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)

    def header(self) -> list[str]:
        """Reads the names of the columns; those without get one by their place, such as `column1`."""
        header = self._look_at_header()
        if header.is_separator_line:
            raise Unsuitable(
                "its first line, `sep=`, is for Excel alone",
                "`tail -n +2 FILE | upsert-cli run - --format FORMAT` loads the rest",
                is_usage=True,
            )
        if self._delimiter == ",":
            self._reader = csv.reader(self._lines, delimiter=header.delimiter(), strict=True)
        fields = next(self, [])
        if isinstance(fields, ItemError):
            raise OSError(f"its header: {fields.detail}")
        names = [name or f"column{place}" for place, name in enumerate(fields, start=1)]
        repeated = [name for name, times in Counter(names).items() if times > 1]
        if repeated:
            raise OSError(f"two columns are called `{repeated[0]}`; rename one of them")
        return names

    def _look_at_header(self) -> _Header:
        """Look at the header, of several lines if a name has line breaks; it is read again."""
        header = _Header()
        self._lines.begin()
        with suppress(_TooLong):
            for line in self._lines:
                header.add(line)
                if line.strip() and not header.is_quoted:
                    break
        self._lines.give_back(0)
        return header

    def go_to(self, offset: int) -> None:
        """Goes on at a place that was reached before."""
        skip(self._file, offset - self.offset)
        self.offset = offset

    def text(self) -> bytes | None:
        """Return the last record as it stands in the file; None if it is longer than any record may be."""
        return b"".join(self._lines.record) if self._lines.size <= MAX_LINE else None

    def __iter__(self) -> Iterator[list[str] | ItemError]:
        return self

    def __next__(self) -> list[str] | ItemError:
        lines, fields = self._lines, None
        while not fields:  # blank lines are no records
            lines.begin()
            try:
                fields = next(self._reader)
            except (csv.Error, _TooLong) as error:
                reason = _reason(error, lines=len(lines.record))
                self._give_up()
                self.offset += lines.size
                return reason
            self.offset += lines.size
        return fields if lines.fault is None else _fault(lines.fault)

    def _give_up(self) -> None:
        """Goes on behind the first line of a broken record, since a quote left open takes good records with it."""
        lines = self._lines
        if len(lines.record) > 1 and self._rescanned + lines.size <= RESCAN_BYTES:
            self._rescanned += lines.give_back(1)
        elif not lines.record[-1].endswith(b"\n"):
            lines.size += skip_line(self._file)


class _Header:
    """A header whose delimiter is not known yet."""

    def __init__(self) -> None:
        self.text = ""
        self.is_quoted = False
        self._is_at_start = True
        self._outside: Counter[str] = Counter()

    def add(self, line: str) -> None:
        """Add a line."""
        self.text += line
        for character in line:
            if self.is_quoted:
                self.is_quoted = character != '"'
                self._is_at_start = True  # a second quote makes one of the text
            elif character == '"' and self._is_at_start:
                self.is_quoted = True
            else:
                self._is_at_start = character in ",\r\n" or character in OTHER_DELIMITERS
                self._outside[character] += self._is_at_start

    @property
    def is_separator_line(self) -> bool:
        """Whether it is no header but what tells Excel the delimiter."""
        return SEPARATOR_LINE.fullmatch(self.text.strip().strip('"')) is not None

    def delimiter(self) -> str:
        """Return the comma if there is one outside of quotes, else the most frequent other delimiter."""
        found = [one for one in OTHER_DELIMITERS if self._outside[one]]
        return "," if self._outside[","] or not found else max(found, key=self._outside.__getitem__)


class _Lines:
    """The lines of a file as the parser takes them, and those of the record at hand."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._again: deque[bytes] = deque()
        self.begin()

    def begin(self) -> None:
        """Begins a record."""
        self.record: list[bytes] = []
        self.size = 0
        self.fault: str | None = None

    def give_back(self, kept: int) -> int:
        """Hands out again what follows the first `kept` lines of the record, and returns its bytes."""
        again = self.record[kept:]
        size = sum(map(len, again))
        self._again.extendleft(reversed(again))
        self.record, self.size = self.record[:kept], self.size - size
        return size

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._file.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        self.record.append(line)
        self.size += len(line)
        if self.size > MAX_LINE:
            raise _TooLong
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self.fault = self.fault or not_utf8(line, error)
            return line.decode(errors="replace")


def _reason(error: csv.Error | _TooLong, *, lines: int) -> ItemError:
    text = str(error)
    if isinstance(error, _TooLong) and lines == 1:
        return too_long()
    if isinstance(error, _TooLong) or "unexpected end" in text or "field larger" in text:
        return _fault("a quote that opens in this row is never closed")
    if "expected after" in text:
        return _fault("a quote inside of a quoted field is not doubled, or one that opens in this row is never closed")
    if "new-line" in text:
        return _fault("a carriage return without a line feed, outside of quotes; `tr '\\r' '\\n'` mends old line ends")
    return _fault(f"not CSV: {text}")


def _fault(detail: str) -> ItemError:
    return ItemError(stage=Stage.READING, detail=detail)
