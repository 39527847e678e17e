"""The first bytes of a file -> what it is, if it is clearly no file of items, and how to load it all the same.

In a remedy, `FILE` stands for the name of the file, quoted for the shell.
"""

from __future__ import annotations

import re

HEAD = 64  # bytes that tell what a file is

GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"


class Unsuitable(OSError):
    """Raised when a file is sound, but is not in a form that can be read here."""

    def __init__(self, reason: str, remedy: str, *, is_usage: bool = False) -> None:
        """Keep the remedy apart from the reason, since the usual one, to repair the file, does not apply.

        Args:
            reason: What the file is.
            remedy: How to load it; may hold `FILE`.
            is_usage: The user has to call the tool in another way.
        """
        super().__init__(reason)
        self.remedy = remedy
        self.is_usage = is_usage


def what_it_is(head: bytes) -> tuple[str, str] | None:
    """Return what a file with these first bytes clearly is, and the remedy; None if it may be text."""
    for begin, words in _MAGIC.items():
        if head.startswith(begin):
            return words
    return next((words for pattern, words in _PATTERNS if pattern.match(head)), None)


def refuse_foreign(head: bytes) -> None:
    """Check that a file may be text.

    Raises:
        Unsuitable: It is clearly something else.
    """
    if (found := what_it_is(head)) is not None:
        reason, remedy = found
        raise Unsuitable(f"it is {reason}", remedy)


def _by_pyarrow(read: str) -> str:
    """Return the command that writes a file as Parquet; pyarrow is installed wherever this tool is."""
    return f"`python -c \"import sys, pyarrow.{read}, 'data.parquet')\" FILE` makes Parquet of it"


_UTF16 = ("text in UTF-16", "`iconv -f UTF-16 -t UTF-8 FILE` rewrites it")
_UTF32 = ("text in UTF-32", "`iconv -f UTF-32 -t UTF-8 FILE` rewrites it")
_ARCHIVE = "unpack it, and load the files in it"
_UNPACK = "unpack it, or compress it with gzip or zstd"

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
    b"ARROW1": (
        "an Arrow file",
        _by_pyarrow("feather as f, pyarrow.parquet as p; p.write_table(f.read_table(sys.argv[1])"),
    ),
    b"FEA1": (
        "a Feather file",
        _by_pyarrow("feather as f, pyarrow.parquet as p; p.write_table(f.read_table(sys.argv[1])"),
    ),
    b"\xff\xff\xff\xff": (
        "a stream of Arrow",
        _by_pyarrow("ipc as i, pyarrow.parquet as p; p.write_table(i.open_stream(sys.argv[1]).read_all()"),
    ),
    b"\xd0\xcf\x11\xe0": ("a file of an old Excel or Word", "save it as CSV"),
    b"SQLite format 3\0": (
        "an SQLite database",
        "`sqlite3 -csv -header FILE 'SELECT * FROM table' > data.csv` writes a table as CSV",
    ),
    b"%PDF": ("a PDF", "extract its text"),
    b"\x89HDF": ("an HDF5 file", "write its table as Parquet or CSV"),
    b"\x93NUMPY": ("a NumPy array", "write it as Parquet, with a column for the ids"),
    b"version https://git-lfs": ("a pointer of Git LFS, not the data", "`git lfs pull` fetches the data"),
}
"""First bytes; of two that begin alike, the longer ones come first."""

_PATTERNS = (
    (
        re.compile(rb"\s*<(?:!doctype|html|head|body)\b", re.IGNORECASE),
        ("an HTML page, such as that of a login or an error", "download the data itself, with what lets you in"),
    ),
    (re.compile(rb"\s*<\?xml"), ("XML", "write its records as JSONL or CSV")),
    (re.compile(rb"(?:[\t-~]\0){2}|(?:\0[\t-~]){2}"), _UTF16),  # without a byte-order mark
)
