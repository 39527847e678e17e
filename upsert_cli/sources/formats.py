"""The formats of files, by suffix and by first bytes, and the errors for files that cannot be read.

In the remedy of an error, `FILE` stands for the name of the file, quoted for the shell, and of its content if it is
compressed; `PACKED` for the name of the file itself; and `FORMAT` for the format without its compression.

A new format has an entry in `TEXT_FORMATS` or `BINARY_FORMATS` here, and one in `readers`.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal, TypeAlias

from upsert_cli.errors import SourceUnreadable, UpsertCliError, UsageFault, reason_of

if TYPE_CHECKING:
    from upsert_cli.sources.remote import FilePath

STDIN = "-"  # the name of standard input as a source
SCHEME = "chroma:"  # of a collection as a source, `chroma:TARGET#COLLECTION`
COLLECTION_FORMAT = "chroma"  # in place of a file's format

HEAD = 64  # bytes that tell the kind of a file

GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"

Compression: TypeAlias = Literal["gzip", "zstd"]

COMPRESSIONS: dict[str, Compression | None] = {"": None, ".gz": "gzip", ".zst": "zstd"}
"""The endings that may follow the name and the suffix of a text format."""

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
"""The suffixes of all formats; a compressed text format has a name of its own, such as `csv.gz`."""

KNOWN_SUFFIXES = tuple(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)

WRITTEN_FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet")
"""The formats that can be written, keys of `SUFFIXES`."""


def is_collection(name: str) -> bool:
    """Tell whether a name is that of a collection and not a path or another address."""
    return name.startswith(SCHEME)


def is_read_from_its_end(name: str) -> bool:
    """Tell whether the beginning of a file in this format says nothing without its end."""
    return name == "parquet"


def is_table(name: str) -> bool:
    """Tell whether rows in this format have no objects inside: the id is a column among others."""
    return name.partition(".")[0] in DELIMITERS


def has_json_texts(name: str) -> bool:
    """Tell whether a text in the columns `payload` and `item_info` of this format may be the JSON of an object."""
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


# -- other kinds of files -----------------------------------------------------------------------------------------


class Unsuitable(OSError):
    """Raised when a file is sound but in a form that cannot be read here, so that repairing it would not help."""

    def __init__(self, reason: str, remedy: str, *, is_usage: bool = False) -> None:
        """Take a reason and how to load the file all the same; `is_usage`: by calling the tool in another way."""
        super().__init__(reason)
        self.remedy = remedy
        self.is_usage = is_usage


def kind_of_file(head: bytes) -> tuple[str, str] | None:
    """Return the kind of a file with these first bytes and how to load it, or None if it may be text."""
    for begin, words in _MAGIC.items():
        if head.startswith(begin):
            return words
    return next((words for pattern, words in _PATTERNS if pattern.match(head)), None)


def refuse_foreign(head: bytes) -> None:
    """Raise Unsuitable if a file with these first bytes is clearly not text."""
    if (found := kind_of_file(head)) is not None:
        reason, remedy = found
        raise Unsuitable(f"it is {reason}", remedy)


def _by_pyarrow(read: str) -> str:
    """Return the command that converts a file to Parquet; pyarrow is installed wherever this tool is."""
    return f"`python -c \"import sys, pyarrow.{read}, 'data.parquet')\" FILE` converts it to Parquet"


_BY_FEATHER = _by_pyarrow("feather as f, pyarrow.parquet as p; p.write_table(f.read_table(sys.argv[1])")
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
"""By first bytes; of two that begin alike, the longer one comes first."""

_PATTERNS = (
    (
        re.compile(rb"\s*<(?:!doctype|html|head|body)\b", re.IGNORECASE),
        ("an HTML page, such as a login or error page", "download the data itself, with your credentials"),
    ),
    (re.compile(rb"\s*<\?xml"), ("XML", "write its records as JSONL or CSV")),
    (re.compile(rb"(?:[\t-~]\0){2}|(?:\0[\t-~]){2}"), _UTF16),  # without a byte-order mark
)


def unknown_format(name: str, *, path: Path | None = None) -> UsageFault:
    """Return the error for an unknown suffix; the first bytes of a file of this machine tell its kind and a remedy."""
    with suppress(OSError):  # the missing suffix is the first thing to correct
        if path is not None and (found := kind_of_file(head_of(path))) is not None:
            ending = path.suffix.lower()
            if found is {".gz": _MAGIC[GZIP], ".zst": _MAGIC[ZSTD]}.get(ending):
                return UsageFault(
                    message=f"{name} has no suffix that tells the format in it; --format says what it is, such as "
                    f"--format jsonl{ending}"
                )
            kind = "; ".join(found).replace("FILE", _quoted(str(path)))
            return UsageFault(message=f"{name} has no suffix that tells its format; it is {kind}")
    hint = "; `jq -c '.[]'` converts a JSON array to JSONL" if name.lower().endswith(".json") else ""
    return UsageFault(
        message=f"{name} has none of the suffixes {', '.join(KNOWN_SUFFIXES)}; "
        f"--format says what it is, such as --format jsonl{hint}"
    )


def head_of(path: FilePath) -> bytes:
    """Return the first bytes of a file, which tell its kind; raise OSError if it cannot be read."""
    with path.open("rb") as file:
        return file.read(HEAD)


def unreadable(name: str, format_name: str, error: OSError, *, row: int = 0) -> SourceUnreadable:
    """Return the error for a source that cannot be read beyond a row."""
    remedy = _remedy(name, format_name, error) if isinstance(error, Unsuitable) else None
    return SourceUnreadable(name=name, reason=reason_of(error), row=row, remedy=remedy)


def not_loadable(name: str, format_name: str, error: OSError) -> UpsertCliError:
    """Return the error for a source that cannot be read at all, before there is a task."""
    if isinstance(error, Unsuitable) and error.is_usage:
        where = "standard input" if name == STDIN else name
        return UsageFault(message=f"{where} cannot be loaded unchanged: {error}; {_remedy(name, format_name, error)}")
    return unreadable(name, format_name, error)


def _remedy(name: str, format_name: str, error: Unsuitable) -> str:
    """Return the remedy with the names of a file on this machine, after the steps that make it."""
    from upsert_cli.sources.addresses import file_name, is_address  # late: the help does not wait for it

    form, dot, ending = format_name.partition(".")
    steps = []
    if re.search("FILE|PACKED", error.remedy):
        if is_address(name):
            name = file_name(name)
            steps.append("download it")
        elif name == STDIN:
            name = "FILE"
            steps.append("save it to a file")
    unpacked = name
    if dot and "FILE" in error.remedy:
        unpacked = name.removesuffix(f".{ending}")
        steps.append("unpack it")
    remedy = error.remedy.replace("FILE", _quoted(unpacked)).replace("PACKED", _quoted(name)).replace("FORMAT", form)
    return f"{' and '.join(steps)}, then {remedy}" if steps else remedy


def _quoted(name: str) -> str:
    """Return the name of a file for the shell, where a command does not take it for an option."""
    return shlex.quote(f"./{name}" if name.startswith("-") and name != "-" else name)
