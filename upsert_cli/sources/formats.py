"""A format's name -> how its rows are read and counted; another is an entry here, one in `suffixes`, and a module."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import BinaryIO, Protocol

from upsert_cli.errors import ForeignForm, SourceUnreadable
from upsert_cli.sources.compression import open_bytes
from upsert_cli.sources.csv import count_records, cut_records, read_records
from upsert_cli.sources.foreign import GZIP, HEAD, PARQUET, ZSTD, Unsuitable, refuse_foreign
from upsert_cli.sources.item import Row
from upsert_cli.sources.jsonl import count_lines, cut_lines, read_lines
from upsert_cli.sources.parquet import count_rows, cut_rows, read_rows
from upsert_cli.sources.remote import Place
from upsert_cli.sources.suffixes import COMPRESSIONS, Compression, format_of


class RowReader(Protocol):
    """What reads a file of one format, from any row on."""

    def __call__(self, path: Place, *, row: int, offset: int) -> Iterator[Row]:
        """Yields every row behind the first `row` ones.

        Args:
            path: What to open.
            row: Rows that are behind us.
            offset: The offset that came with the last of them; nothing before it is read, but a header, and what has
                to be inflated. 0 in formats without.

        Raises:
            OSError: The file cannot be opened or read any further.
        """


class TextReader(Protocol):
    """What reads the bytes of a text file, from any row on."""

    def __call__(self, file: BinaryIO, *, row: int, offset: int) -> Iterator[Row]:
        """Yields as a `Reader` does; the file is at its first byte."""


class Cutter(Protocol):
    """What finds the places of a file at which reading may begin."""

    def __call__(self, path: Place, *, rows: int, size: int) -> Iterator[tuple[int, int]]:
        """Yields each place as the rows behind it and the offset to begin at; the last one is the end of the file.

        Args:
            path: What to open.
            rows: Rows from one place to the next at most.
            size: Bytes from one place to the next, but for a row that alone has more.

        Raises:
            OSError: The file cannot be opened or read any further.
        """


class TextCutter(Protocol):
    """What finds such places in the bytes of a text file."""

    def __call__(self, file: BinaryIO, *, rows: int, size: int) -> Iterator[tuple[int, int]]:
        """Yields as a `Cutter` does; the file is at its first byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of file."""

    read: RowReader

    count: Callable[[Place], int | None]
    """Returns the rows of a file, or None where only reading tells; raises OSError."""

    cut: Cutter | None = None
    """None where reading can only begin at the first byte, since the file is compressed as a whole."""

    is_table: bool = False
    """Its rows have no objects inside: the id is a column among others."""

    has_json_texts: bool = False
    """A text in its columns `payload` and `item_info` may be the JSON of an object."""


def _text_formats(
    name: str, *, read: TextReader, count: Callable[[BinaryIO], int], cut: TextCutter
) -> dict[str, Format]:
    """Returns a text format and its compressed forms."""
    return {
        f"{name}{ending}": Format(
            read=partial(_read_text, read, compression),
            count=partial(_count_text, count, compression),
            cut=partial(_cut_text, cut) if compression is None else None,
            is_table=read is not read_lines,
            has_json_texts=read is not read_lines,
        )
        for ending, compression in COMPRESSIONS.items()
    }


def _read_text(
    read: TextReader,
    compression: Compression | None,
    path: Place,
    *,
    row: int,
    offset: int,
) -> Iterator[Row]:
    with open_bytes(path, compression, is_known=offset > 0) as file:
        yield from read(file, row=row, offset=offset)


def _count_text(count: Callable[[BinaryIO], int], compression: Compression | None, path: Place) -> int | None:
    if compression is None:
        with open_bytes(path, None) as file:
            return count(file)
    try:
        with open_bytes(path, compression) as file:
            return count(file)
    except Unsuitable:
        raise
    except OSError:  # the rows before the damage are loaded, and reading them finds it
        return None


def _cut_text(cut: TextCutter, path: Place, *, rows: int, size: int) -> Iterator[tuple[int, int]]:
    with open_bytes(path, None) as file:
        yield from cut(file, rows=rows, size=size)


def _count_parquet(path: Place) -> int:
    try:
        return count_rows(path)
    except OSError:
        with path.open("rb") as file:
            head = file.read(HEAD)
        if head.startswith((GZIP, ZSTD)):
            raise Unsuitable("it is compressed as a whole", "unpack it; Parquet is compressed inside") from None
        if not head.startswith(PARQUET):
            refuse_foreign(head)
        raise


FORMATS = {
    **_text_formats("jsonl", read=read_lines, count=count_lines, cut=cut_lines),
    **_text_formats(
        "csv",
        read=partial(read_records, delimiter=","),
        count=partial(count_records, delimiter=","),
        cut=partial(cut_records, delimiter=","),
    ),
    **_text_formats(
        "tsv",
        read=partial(read_records, delimiter="\t"),
        count=partial(count_records, delimiter="\t"),
        cut=partial(cut_records, delimiter="\t"),
    ),
    "parquet": Format(read=read_rows, count=_count_parquet, cut=cut_rows, has_json_texts=True),
}


def unreadable(name: str, error: OSError, *, row: int = 0) -> SourceUnreadable:
    """Return the error for a source that cannot be read beyond a row."""
    remedy = _remedy(name, error) if isinstance(error, Unsuitable) else None
    return SourceUnreadable(name=name, reason=why_unreadable(error), row=row, remedy=remedy)


def not_loadable(name: str, error: OSError) -> SourceUnreadable | ForeignForm:
    """Return the error for a source of which nothing can be read, before there is a task."""
    if isinstance(error, Unsuitable) and error.is_usage:
        return ForeignForm(name=name, reason=str(error), remedy=_remedy(name, error))
    return unreadable(name, error)


def _remedy(name: str, error: Unsuitable) -> str:
    form = (format_of(PurePath(name)) or "jsonl").partition(".")[0]
    return error.remedy.replace("FILE", shlex.quote(name)).replace("FORMAT", form)


def why_unreadable(error: OSError) -> str:
    """Returns the system's or the reader's reason, in one line."""
    return error.strerror or " ".join(str(error).split())
