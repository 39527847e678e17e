"""A file's suffix -> how its rows are read and counted; another format is one more entry here and one more module."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

from upsert_cli.stream.jsonl import count_lines, read_lines
from upsert_cli.stream.parquet import count_rows, read_rows


class Reader(Protocol):
    """What reads a file of one format, from any row on."""

    def __call__(
        self, path: Path, *, row: int, offset: int, fields: Collection[str] | None
    ) -> Iterator[tuple[int, object, int]]:
        """Yields number and value of every row behind the first `row` ones, and the offset of the next.

        Args:
            path: What to open.
            row: Rows that are behind us.
            offset: The offset that came with the last of them; nothing before it is read. 0 in formats without.
            fields: The only top-level fields that are wanted; None: all.

        Yields:
            An ItemError in place of the value of a row, or of one of its fields, that cannot be read.

        Raises:
            OSError: The file cannot be opened or read any further.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A kind of file."""

    suffixes: tuple[str, ...]
    """In lower case, with the dot."""

    read: Reader

    count: Callable[[Path], int]
    """Returns the rows of a file; raises OSError."""


FORMATS = {
    "jsonl": Format(suffixes=(".jsonl", ".ndjson"), read=read_lines, count=count_lines),
    "parquet": Format(suffixes=(".parquet",), read=read_rows, count=count_rows),
}

KNOWN_SUFFIXES = tuple(suffix for kind in FORMATS.values() for suffix in kind.suffixes)


def why_unreadable(error: OSError) -> str:
    """Returns the system's or the reader's reason, in one line."""
    return error.strerror or " ".join(str(error).split())


def format_of(path: PurePath) -> str | None:
    """Returns the name of a file's format, or None where its suffix says none."""
    suffix = path.suffix.lower()
    return next((name for name, kind in FORMATS.items() if suffix in kind.suffixes), None)
