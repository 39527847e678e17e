"""The formats of files, by name and suffix.

A new format is a module with a subclass of `TextFormat` (or, if it is not text, a class with the methods of `Format`),
an entry in `SUFFIXES` and in `source.format_named`, and its tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from upsert_cli.sources.item import Row
    from upsert_cli.sources.source_path import FilePath

Compression: TypeAlias = Literal["gzip", "zstd"]

COMPRESSIONS: dict[str, Compression | None] = {"": None, ".gz": "gzip", ".zst": "zstd"}
"""The endings that may follow the name and the suffix of a text format."""


class Format(Protocol):
    """A format of files."""

    is_table: bool
    """Its rows have no objects inside: the id is a column among others."""

    has_json_texts: bool
    """A text in its columns `payload` and `item_info` may be the JSON of an object."""

    def read(self, path: FilePath, *, row: int, offset: int) -> Iterator[Row]:
        """Yield every row after the first `row` ones.

        Args:
            path: The file.
            row: Rows to leave out.
            offset: The offset that came with the last of them. Nothing before it is read, except a header, and what
                has to be decompressed to reach it. 0 in formats that are addressed by rows.

        Raises:
            OSError: The file cannot be opened or read any further.
        """

    def count(self, path: FilePath) -> int | None:
        """Return the number of rows, or None if it costs too much to know; raise OSError like `read`."""

    def boundaries(self, path: FilePath, *, rows: int, size: int) -> Iterator[tuple[int, int]] | None:
        """Yield where to divide a file for several readers, or return None if it cannot be divided.

        Args:
            path: The file.
            rows: The most rows between two boundaries.
            size: The most bytes between two boundaries, except for a single row that is larger.

        Yields:
            The rows before the boundary and the offset to read from; the last boundary is after the last row.

        Raises:
            OSError: The file cannot be opened or read any further.
        """


DELIMITERS = {"csv": ",", "tsv": "\t"}

SUFFIXES = {
    f"{name}{ending}": tuple(f"{suffix}{ending}" for suffix in suffixes)
    for name, suffixes in {"jsonl": (".jsonl", ".ndjson"), "csv": (".csv",), "tsv": (".tsv",)}.items()
    for ending in COMPRESSIONS
} | {"parquet": (".parquet",)}
"""The suffixes of each format, in lower case; a compressed text format has a name of its own, such as `csv.gz`."""

KNOWN_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


def is_read_from_its_end(name: str) -> bool:
    """Tell whether the beginning of a file in this format says nothing without its end."""
    return name == "parquet"


def has_row_on_each_line(name: str) -> bool:
    """Tell whether a row ends with its line, so that the lines of a file can be counted before it is whole."""
    return name == "jsonl"


def format_name_of(path: PurePath) -> str | None:
    """Return the name of a file's format by its suffix, or None if the suffix is unknown."""
    name = path.name.lower()
    return next((key for key, suffixes in SUFFIXES.items() if name.endswith(suffixes)), None)


def check_column_names(names: Iterable[str]) -> None:
    """Raise OSError if two columns of a table have the same name."""
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise OSError(f"two columns are called `{repeated[0]}`; rename one of them")
