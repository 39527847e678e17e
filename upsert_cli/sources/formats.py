"""The formats of sources, by name and by suffix.

A new format has an entry in `TEXT_FORMATS` or `BINARY_FORMATS` here, and one in `readers`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath
from typing import Literal, TypeAlias

STDIN = "-"  # the name of standard input as a source
SCHEME = "chroma:"  # of a collection as a source, `chroma:TARGET#COLLECTION`
COLLECTION_FORMAT = "chroma"  # in place of a file's format

Compression: TypeAlias = Literal["gzip", "zstd"]

COMPRESSIONS: dict[str, Compression | None] = {"": None, ".gz": "gzip", ".zst": "zstd"}
"""By the ending that follows the name and the suffix of a text format."""

DELIMITERS = {"csv": ",", "tsv": "\t"}

TEXT_FORMATS = {"jsonl": (".jsonl", ".ndjson"), "csv": (".csv",), "tsv": (".tsv",)}
"""The suffixes of each format that may be compressed as a whole, in lower case."""

BINARY_FORMATS = {"parquet": (".parquet",)}
"""The suffixes of each other format, in lower case."""

SUFFIXES = {
    f"{name}{ending}": tuple(f"{suffix}{ending}" for suffix in suffixes)
    for name, suffixes in TEXT_FORMATS.items()
    for ending in COMPRESSIONS
} | BINARY_FORMATS
"""The suffixes of all formats; a compressed text format has another name, such as `csv.gz`."""

KNOWN_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

WRITTEN_FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet")
"""The formats that can be written, keys of `SUFFIXES`."""


def is_collection(name: str) -> bool:
    """Check whether a source is a collection, by its name."""
    return name.startswith(SCHEME)


def is_read_from_its_end(name: str) -> bool:
    """Check whether a file in this format cannot be read without its end."""
    return name == "parquet"


def is_table(name: str) -> bool:
    """Check whether the rows of a format are flat: the id is a column among others."""
    return name.partition(".")[0] in DELIMITERS


def has_json_texts(name: str) -> bool:
    """Check whether the columns `payload` and `item_info` of a format may hold objects as JSON text."""
    return name == "parquet" or is_table(name)


def format_name_of(path: PurePath) -> str | None:
    """Return the name of a file's format by its suffix, or None if the suffix is unknown."""
    name = path.name.lower()
    return next((key for key, suffixes in SUFFIXES.items() if name.endswith(suffixes)), None)


def check_column_names(names: Iterable[str]) -> None:
    """Raise OSError if two columns of a table have the same name."""
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise OSError(f"two columns are called `{repeated[0]}`; rename one of them")
