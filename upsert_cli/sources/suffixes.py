"""A file's name -> the name of its format; how each is read stands in `formats`, which loads the readers."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal, TypeAlias

Compression: TypeAlias = Literal["gzip", "zstd"]

COMPRESSIONS: dict[str, Compression | None] = {"": None, ".gz": "gzip", ".zst": "zstd"}
"""What is put behind the name and the suffixes of a text format."""

TEXT_SUFFIXES = {"jsonl": (".jsonl", ".ndjson"), "csv": (".csv",), "tsv": (".tsv",)}
"""In lower case, with the dot."""

SUFFIXES = {
    **{
        f"{name}{ending}": tuple(f"{suffix}{ending}" for suffix in suffixes)
        for name, suffixes in TEXT_SUFFIXES.items()
        for ending in COMPRESSIONS
    },
    "parquet": (".parquet",),
}
"""Of every format there is."""

KNOWN_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)


def format_of(path: PurePath) -> str | None:
    """Returns the name of a file's format, or None where its suffix says none."""
    name = path.name.lower()
    return next((key for key, suffixes in SUFFIXES.items() if name.endswith(suffixes)), None)
