"""Text files, compressed or not, as streams of bytes with bounded memory.

Damage ends a stream only after the last good byte, and a file of another kind is named at once.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from upsert_cli.sources.compressed_frames import data_end, limit_exceeded
from upsert_cli.sources.formats import Compression, TextFormat
from upsert_cli.sources.item import Row
from upsert_cli.sources.remote import FilePath, RemoteFile
from upsert_cli.sources.unreadable import GZIP, HEAD, ZSTD, Unsuitable, kind_of_file, refuse_foreign

if TYPE_CHECKING:
    import pyarrow as pa
    from _typeshed import WriteableBuffer

BUFFER = 256 << 10  # bytes; with Python's default of 8 KiB, reading lines costs three times the CPU
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_SKIPPABLE = b"\x2a\x4d\x18"  # after the first byte of a frame without data, with which parallel writers begin


@dataclass(frozen=True, slots=True)
class CompressibleFormat:
    """A text format in files that are compressed in one way, or not at all; implements `Format`."""

    text: TextFormat
    compression: Compression | None

    @property
    def is_table(self) -> bool:
        """See `Format`."""
        return self.text.is_table

    @property
    def has_json_texts(self) -> bool:
        """See `Format`."""
        return self.text.has_json_texts

    def read(self, path: FilePath, *, row: int, offset: int) -> Iterator[Row]:
        """Yield the rows."""
        with open_bytes(path, self.compression, is_known=offset > 0) as file:
            yield from self.text.read(file, row=row, offset=offset)

    def count(self, path: FilePath) -> int | None:
        """Count the rows; return None for a remote file, which would be downloaded for it, and for a damaged one.

        The good rows of a damaged file are loaded, and reading the others reports the damage.
        """
        if isinstance(path, RemoteFile):
            return None
        try:
            with open_bytes(path, self.compression) as file:
                return self.text.count(file)
        except OSError as error:
            if self.compression is None or isinstance(error, Unsuitable):
                raise
            return None

    def boundaries(self, path: FilePath, *, rows: int, size: int) -> Iterator[tuple[int, int]] | None:
        """Yield boundaries; a compressed file has none, since reading it begins at its first byte."""
        return self._boundaries(path, rows=rows, size=size) if self.compression is None else None

    def _boundaries(self, path: FilePath, *, rows: int, size: int) -> Iterator[tuple[int, int]]:
        with open_bytes(path, None) as file:
            yield from self.text.boundaries(file, rows=rows, size=size)


@contextmanager
def open_bytes(path: FilePath, compression: Compression | None, *, is_known: bool = False) -> Iterator[BinaryIO]:
    """Open a text file at its first byte.

    Args:
        path: What to open.
        compression: How it is compressed.
        is_known: Its first bytes were looked at before, so they are not fetched again for that.

    Raises:
        OSError: It cannot be opened, or is something else; later also, while it is read, that it is damaged.
    """
    with path.open("rb", buffering=BUFFER) as raw:
        if compression is None:
            if not is_known:
                refuse_foreign(_head(raw))
            yield raw
            return
        if not is_known:
            _refuse_uncompressed(_head(raw), compression)
    with closing(_Decompressed(path, compression)) as decompressed:
        file: BinaryIO = io.BufferedReader(decompressed, BUFFER)
        if not is_known:
            refuse_foreign(_head(file))
        yield file


class _Decompressed(io.RawIOBase):
    """The content of a compressed file, to the last byte before any damage, which is then raised as an OSError.

    pyarrow returns nothing from a call that meets damage, so from there on it is asked for single bytes. Zeros after
    the data are padding, not damage.
    """

    def __init__(self, path: FilePath, compression: Compression) -> None:
        self._path = path
        self._compression = compression
        self._end: int | None = None
        self._stream = self._open()
        self._returned = 0
        self._damaged = False

    def _open(self) -> BinaryIO:
        import pyarrow as pa

        file = native_file(self._path)
        data = file if self._end is None else file.get_stream(0, self._end)
        return cast("BinaryIO", pa.CompressedInputStream(data, self._compression))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        into = memoryview(buffer).cast("B")
        try:
            data = self._stream.read(1 if self._damaged else len(into))
        except OSError as error:
            if self._damaged:
                raise limit_exceeded(self._path, self._compression) or error from None
            self._reopen()
            return self.readinto(buffer)
        into[: len(data)] = data
        self._returned += len(data)
        return len(data)

    def _reopen(self) -> None:
        """Open the file again: up to its padding if it has any, else to read the bytes before the damage one by one."""
        self._stream.close()
        if self._end is None:
            self._end = data_end(self._path, self._compression)
            self._damaged = self._end is None
        else:
            self._damaged = True
        self._stream = self._open()
        skip(self._stream, self._returned)

    def close(self) -> None:
        self._stream.close()
        super().close()


def native_file(path: FilePath) -> pa.NativeFile:
    """Open a file as pyarrow does; raise OSError if that fails."""
    import pyarrow as pa

    if isinstance(path, RemoteFile):
        return pa.PythonFile(path.open(), mode="r")
    return pa.OSFile(os.fsencode(path))  # by bytes: pyarrow takes every path in text for UTF-8


def skip_byte_order_mark(file: BinaryIO) -> int:
    """Skip the mark that some editors write at the start of a file, and return its size."""
    if not _head(file).startswith(BYTE_ORDER_MARK):
        return 0
    return len(file.read(len(BYTE_ORDER_MARK)))


def skip(file: BinaryIO, size: int) -> None:
    """Skip `size` bytes; in a compressed file they have to be decompressed.

    Raises:
        OSError: The file is damaged, or shorter than that.
    """
    if file.seekable():
        file.seek(size, os.SEEK_CUR)
        return
    while size:
        piece = file.read(min(size, BUFFER))
        if not piece:
            raise OSError(f"it ends {size} bytes before the position to continue at")
        size -= len(piece)


def _head(file: BinaryIO) -> bytes:
    return cast("io.BufferedReader", file).peek(HEAD)[:HEAD]


def _refuse_uncompressed(head: bytes, compression: Compression) -> None:
    if head.startswith(GZIP if compression == "gzip" else ZSTD):
        return
    if compression == "zstd" and head[1:4] == _SKIPPABLE:
        return
    reason = f"it is not compressed with {compression}"
    if (found := kind_of_file(head)) is not None:
        other, remedy = found
        raise Unsuitable(f"{reason}, but {other}", remedy)
    raise OSError(reason)
