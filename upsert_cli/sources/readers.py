"""The reader of each format, and the writers; the module of a format is imported when it is needed.

A new format is a module with the two functions that `TextFile` takes (or, if it is not text, with a `RowReader`), an
entry in `reader_of` and in `formats`, and its tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Protocol

from upsert_cli.sources.formats import COMPRESSIONS, DELIMITERS, Compression

if TYPE_CHECKING:
    from upsert_cli.sources.item import Row, WrittenItem
    from upsert_cli.sources.remote import FilePath


class RowReader(Protocol):
    """The rows of a file or a collection, from any row on.

    The methods raise OSError if the file cannot be opened, or cannot be read any further.
    """

    def read(self, *, row: int, offset: int) -> Iterator[Row]:
        """Yield every row after the first `row` ones.

        Args:
            row: Rows to leave out.
            offset: The offset that came with the last of them; 0 in formats that are addressed by rows. Only a header,
                and bytes that have to be decompressed, are read before it.
        """

    def count(self) -> int | None:
        """Return the number of rows, or None if counting them costs too much."""

    def boundaries(self, *, rows: int, size: int) -> Iterator[tuple[int, int]] | None:
        """Yield the boundaries that divide the rows for several readers, or return None if they cannot be divided.

        Args:
            rows: The most rows between two boundaries.
            size: The most bytes of a file between two boundaries, except for a single row that is larger.

        Yields:
            The rows before the boundary and the offset to read from; the last boundary is after the last row.
        """


def reader_of(path: FilePath, name: str) -> RowReader:
    """Return the reader of a file in a format."""
    if name == "parquet":
        from upsert_cli.sources import parquet

        return parquet.ParquetRows(path)
    from upsert_cli.sources.text_format import TextFile

    if (delimiter := DELIMITERS.get(name.partition(".")[0])) is not None:
        from upsert_cli.sources import csv

        return TextFile(path, _compression_of(name), partial(csv.rows, delimiter), partial(csv.ends, delimiter))
    from upsert_cli.sources import jsonl

    return TextFile(path, _compression_of(name), jsonl.rows, jsonl.ends)


def item_writer(file: BinaryIO, name: str) -> AbstractContextManager[Callable[[Sequence[WrittenItem]], object]]:
    """Return a context with a function that writes items in one of `WRITTEN_FORMATS`; its end completes the file."""
    if name == "parquet":
        from upsert_cli.sources import parquet

        return parquet.writing_items(file)
    from upsert_cli.sources import jsonl

    return jsonl.writing_items(file, _compression_of(name))


def _compression_of(name: str) -> Compression | None:
    _, dot, ending = name.partition(".")
    return COMPRESSIONS[dot + ending]
