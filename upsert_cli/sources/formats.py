"""The formats of files, by name and suffix.

A new format is a module with a class that has the methods of `Format` (or, for text that may be compressed, of
`TextFormat`), an entry in one of the two tables below, and its tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING, BinaryIO, Generic, Literal, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from upsert_cli.sources.item import Row
    from upsert_cli.sources.remote import FilePath

Compression: TypeAlias = Literal["gzip", "zstd"]

COMPRESSIONS: dict[str, Compression | None] = {"": None, ".gz": "gzip", ".zst": "zstd"}
"""What follows the name and the suffix of a text format."""


class Format(Protocol):
    """A format of files."""

    @property
    def is_table(self) -> bool:
        """Its rows have no objects inside: the id is a column among others."""

    @property
    def has_json_texts(self) -> bool:
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
            The rows before the boundary and the offset to read from; the last boundary is the end of the file.

        Raises:
            OSError: The file cannot be opened or read any further.
        """


class TextFormat(Protocol):
    """A format of text files; its methods are those of `Format` for a file that is open at its first byte."""

    is_table: bool
    has_json_texts: bool

    def read(self, file: BinaryIO, *, row: int, offset: int) -> Iterator[Row]:
        """Yield every row after the first `row` ones, as `Format.read` does."""

    def count(self, file: BinaryIO) -> int:
        """Return the number of rows."""

    def boundaries(self, file: BinaryIO, *, rows: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield where to divide the file, as `Format.boundaries` does."""


_F_co = TypeVar("_F_co", covariant=True)


@dataclass(frozen=True, slots=True)
class _Entry(Generic[_F_co]):
    suffixes: tuple[str, ...]
    """In lower case, with the dot."""

    load: Callable[[], _F_co]
    """Imports the format's module: commands that only list formats do without."""


def _jsonl() -> TextFormat:
    from upsert_cli.sources.jsonl import Jsonl

    return Jsonl()


def _delimited(delimiter: str) -> TextFormat:
    from upsert_cli.sources.csv import DelimitedText

    return DelimitedText(delimiter)


def _parquet() -> Format:
    from upsert_cli.sources.parquet import Parquet

    return Parquet()


_TEXT_FORMATS: dict[str, _Entry[TextFormat]] = {
    "jsonl": _Entry((".jsonl", ".ndjson"), _jsonl),
    "csv": _Entry((".csv",), lambda: _delimited(",")),
    "tsv": _Entry((".tsv",), lambda: _delimited("\t")),
}
_BINARY_FORMATS: dict[str, _Entry[Format]] = {"parquet": _Entry((".parquet",), _parquet)}

SUFFIXES = {
    f"{name}{ending}": tuple(f"{suffix}{ending}" for suffix in entry.suffixes)
    for name, entry in _TEXT_FORMATS.items()
    for ending in COMPRESSIONS
} | {name: entry.suffixes for name, entry in _BINARY_FORMATS.items()}
"""The suffixes of each format, by its name; a compressed text format has a name of its own, such as `csv.gz`."""

KNOWN_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


@cache
def format_named(name: str) -> Format:
    """Return a format by its name, a key of `SUFFIXES`."""
    if name in _BINARY_FORMATS:
        return _BINARY_FORMATS[name].load()
    from upsert_cli.sources.compression import CompressibleFormat

    text, dot, ending = name.partition(".")
    return CompressibleFormat(_TEXT_FORMATS[text].load(), COMPRESSIONS[dot + ending])


def format_name_of(path: PurePath) -> str | None:
    """Return the name of a file's format by its suffix, or None if the suffix is unknown."""
    name = path.name.lower()
    return next((key for key, suffixes in SUFFIXES.items() if name.endswith(suffixes)), None)


def check_column_names(names: Iterable[str]) -> None:
    """Raise OSError if two columns of a table have the same name."""
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise OSError(f"two columns are called `{repeated[0]}`; rename one of them")
