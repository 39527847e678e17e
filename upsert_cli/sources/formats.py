"""The formats of sources by name and by suffix, and kinds of files by their first bytes.

A new format has an entry in `TEXT_FORMATS` or `BINARY_FORMATS` here, and one in `readers`.

Kinds that cannot be read here have a remedy. In it, `FILE` stands for the name of the unpacked file, quoted for the
shell; `PACKED` for the name of the file itself; and `FORMAT` for the format without its compression.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from upsert_cli.sources.remote import FilePath

STDIN = "-"  # the name of standard input as a source
STDOUT = "-"  # the name of standard output as a file to write
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

HEAD = 64  # bytes that show the kind of a file
GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_UTF16 = ("text in UTF-16", "`iconv -f UTF-16 -t UTF-8 FILE` rewrites it")
_UTF32 = ("text in UTF-32", "`iconv -f UTF-32 -t UTF-8 FILE` rewrites it")
_ARCHIVE = "unpack it, and load the files in it"
_UNPACK = "unpack it, or compress it with gzip or zstd"
_PATTERNS = (
    (
        re.compile(rb"\s*<(?:!doctype|html|head|body)\b", re.IGNORECASE),
        ("an HTML page, such as a login or error page", "download the data itself, with your credentials"),
    ),
    (re.compile(rb"\s*<\?xml"), ("XML", "write its records as JSONL or CSV")),
    (re.compile(rb"(?:[\t-~]\0){2}|(?:\0[\t-~]){2}"), _UTF16),  # without a byte-order mark
)


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


class Unsuitable(OSError):
    """Raised when a file is sound but has a form that cannot be read here, so that repairing it would not help."""

    def __init__(self, reason: str, remedy: str, *, is_usage: bool = False) -> None:
        """Take the reason and the way to load the file.

        Args:
            reason: One line, after the name of the file.
            remedy: May hold `FILE`, `PACKED` and `FORMAT`; see the module.
            is_usage: The remedy is another command line, and no change to the file.
        """
        super().__init__(reason)
        self.remedy = remedy
        self.is_usage = is_usage


def kind_of_file(head: bytes) -> tuple[str, str] | None:
    """Return the kind of a file by its first bytes, and the remedy for it; None if the file may be text."""
    for begin, kind in _MAGIC.items():
        if head.startswith(begin):
            return kind
    return next((kind for pattern, kind in _PATTERNS if pattern.match(head)), None)


def refuse_other_kind(head: bytes) -> None:
    """Raise Unsuitable if a file with these first bytes is clearly not text."""
    if (found := kind_of_file(head)) is not None:
        kind, remedy = found
        raise Unsuitable(f"it is {kind}", remedy)


def _by_pyarrow(read: str) -> str:
    """Return the command that converts a file to Parquet with pyarrow, which this tool depends on."""
    return f"`python -c \"import sys, pyarrow.{read}, 'data.parquet')\" FILE` converts it to Parquet"


_BY_FEATHER = _by_pyarrow("feather as f, pyarrow.parquet as p; p.write_table(f.read_table(sys.argv[1])")

_MAGIC = {
    PARQUET: ("Parquet", "--format parquet reads it"),
    GZIP: ("compressed with gzip", "add .gz to its name, or to --format"),
    ZSTD: ("compressed with zstd", "add .zst to its name, or to --format"),
    b"PK\x03\x04": ("a ZIP archive or a spreadsheet", "unpack it, or save it as CSV"),
    b"BZh": ("compressed with bzip2", _UNPACK),
    b"\xfd7zX": ("compressed with xz", _UNPACK),
    b"\x04\x22\x4d\x18": ("compressed with LZ4", _UNPACK),
    b"\xff\x06\0\0sNaPpY": ("compressed with Snappy", _UNPACK),
    b"7z\xbc\xaf'\x1c": ("a 7-Zip archive", _ARCHIVE),
    b"Rar!": ("a RAR archive", _ARCHIVE),
    b"\xff\xfe\0\0": _UTF32,
    b"\0\0\xfe\xff": _UTF32,
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
    b"Obj\x01": ("an Avro file", "`fastavro FILE` (of the package fastavro) prints it as JSONL"),
    b"ORC": ("an ORC file", _by_pyarrow("orc as o, pyarrow.parquet as p; p.write_table(o.read_table(sys.argv[1])")),
    b"ARROW1": ("an Arrow file", _BY_FEATHER),
    b"FEA1": ("a Feather file", _BY_FEATHER),
    b"\xff\xff\xff\xff": (
        "an Arrow stream",
        _by_pyarrow("ipc as i, pyarrow.parquet as p; p.write_table(i.open_stream(sys.argv[1]).read_all()"),
    ),
    b"\xd0\xcf\x11\xe0": ("a file of an old version of Excel or Word", "save it as CSV"),
    b"SQLite format 3\0": (
        "an SQLite database",
        "`sqlite3 -csv -header FILE 'SELECT * FROM table' > data.csv` writes a table as CSV",
    ),
    b"%PDF": ("a PDF", "extract its text"),
    b"\x89HDF": ("an HDF5 file", "write its table as Parquet or CSV"),
    b"\x93NUMPY": ("a NumPy array", "write it as Parquet, with a column for the ids"),
    b"version https://git-lfs": ("a pointer of Git LFS, not the data", "`git lfs pull` fetches the data"),
}
"""By first bytes; the longer of two that begin alike comes first."""


def head_of(path: FilePath) -> bytes:
    """Return the first bytes of a file, which show its kind; raise OSError if it cannot be read."""
    with path.open("rb") as file:
        return file.read(HEAD)
