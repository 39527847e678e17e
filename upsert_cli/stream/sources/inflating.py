"""A text file, compressed or not -> its bytes, with bounded memory; what is clearly no such file is named at once."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from upsert_cli.stream.sources.remote import Place, RemoteFile
from upsert_cli.stream.sources.suffixes import Compression

if TYPE_CHECKING:
    import pyarrow as pa
    from _typeshed import WriteableBuffer

BUFFER = 256 << 10  # bytes; with Python's default of 8 KiB, reading lines costs three times the CPU
HEAD = 4  # bytes that tell what a file is
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SKIPPABLE = b"\x2a\x4d\x18"  # behind the first byte of a frame without data, with which parallel writers begin
_UTF16 = "text in UTF-16; `iconv -f UTF-16 -t UTF-8` rewrites it"
_UTF16_WITHOUT_MARK = re.compile(rb"(?:[\t-~]\0){2}|(?:\0[\t-~]){2}")
_FOREIGN = {
    b"PAR1": "Parquet; --format parquet reads it",
    _GZIP: "compressed with gzip; add .gz to its name, or to --format",
    _ZSTD: "compressed with zstd; add .zst to its name, or to --format",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet; unpack it, or save it as CSV",
    b"BZh": "compressed with bzip2; unpack it, or compress it with gzip or zstd",
    b"\xfd7zX": "compressed with xz; unpack it, or compress it with gzip or zstd",
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
}


@contextmanager
def open_bytes(path: Place, compression: Compression | None, *, is_known: bool = False) -> Iterator[BinaryIO]:
    """Opens a text file at its first byte, behind a byte-order mark there may be.

    Args:
        path: What to open.
        compression: How it is compressed.
        is_known: It was looked at before, so that not even its first bytes need to be read, which may be far away.

    Raises:
        OSError: It cannot be opened, or is something else; also later, while it is read, where it is damaged.
    """
    with path.open("rb", buffering=BUFFER) as raw:
        if compression is None:
            if not is_known:
                _refuse_foreign(_head(raw))
            yield raw
            return
        if not is_known and not _is_compressed(_head(raw), compression):
            raise OSError(f"it is not compressed with {compression}")
    with closing(_Inflated(path, compression)) as inflated:
        file: BinaryIO = io.BufferedReader(inflated, BUFFER)
        if not is_known:
            _refuse_foreign(_head(file))
        yield file


class _Inflated(io.RawIOBase):
    """What a compressed file holds, to the last byte before any damage, which is then raised as an OSError.

    pyarrow gives nothing of a call that comes upon damage, so from there on it is asked for single bytes.
    """

    def __init__(self, path: Place, compression: Compression) -> None:
        self._path = path
        self._compression = compression
        self._stream = self._open()
        self._given = 0
        self._damaged = False

    def _open(self) -> BinaryIO:
        import pyarrow as pa

        return cast("BinaryIO", pa.CompressedInputStream(native_file(self._path), self._compression))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        into = memoryview(buffer).cast("B")
        piece = 1 if self._damaged else len(into)
        try:
            data = self._stream.read(piece)
        except OSError:
            if self._damaged:
                raise
            self._damaged = True
            self._stream.close()
            self._stream = self._open()
            skip(self._stream, self._given)
            data = self._stream.read(1)
        into[: len(data)] = data
        self._given += len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def native_file(path: Place) -> pa.NativeFile:
    """Opens a file as pyarrow does.

    Raises:
        OSError: It cannot be opened.
    """
    import pyarrow as pa

    if isinstance(path, RemoteFile):
        return pa.PythonFile(path.open(), mode="r")
    return pa.OSFile(os.fsencode(path))  # by bytes: pyarrow takes every path in text for UTF-8


def skip_byte_order_mark(file: BinaryIO) -> int:
    """Some editors write the mark at the start of a file, where it has no meaning; returns its bytes."""
    if not _head(file).startswith(BYTE_ORDER_MARK):
        return 0
    return len(file.read(len(BYTE_ORDER_MARK)))


def skip(file: BinaryIO, size: int) -> None:
    """Goes `size` bytes ahead: in a compressed file by inflating what is there.

    Raises:
        OSError: It is damaged, or shorter than that.
    """
    if file.seekable():
        file.seek(size, os.SEEK_CUR)
        return
    while size:
        piece = file.read(min(size, BUFFER))
        if not piece:
            raise OSError(f"it ends {size} bytes before the place to go on at")
        size -= len(piece)


def what_it_is(head: bytes) -> str | None:
    """Returns what a file that begins so clearly is, in words that follow `it is`; None if it may be text."""
    known = next((words for magic, words in _FOREIGN.items() if head.startswith(magic)), None)
    return known or (_UTF16 if _UTF16_WITHOUT_MARK.fullmatch(head) else None)


def _head(file: BinaryIO) -> bytes:
    return cast("io.BufferedReader", file).peek(HEAD)[:HEAD]


def _refuse_foreign(head: bytes) -> None:
    if (words := what_it_is(head)) is not None:
        raise OSError(f"it is {words}")


def _is_compressed(head: bytes, compression: Compression) -> bool:
    if compression == "gzip":
        return head.startswith(_GZIP)
    return head.startswith(_ZSTD) or head[1:] == _SKIPPABLE
