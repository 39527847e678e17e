"""A text file, compressed or not -> its bytes, with bounded memory; what is clearly no such file is named at once."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from upsert_cli.sources.foreign import GZIP, HEAD, ZSTD, Unsuitable, refuse_foreign, what_it_is
from upsert_cli.sources.members import data_end, limit_exceeded
from upsert_cli.sources.remote import Place, RemoteFile
from upsert_cli.sources.suffixes import Compression

if TYPE_CHECKING:
    import pyarrow as pa
    from _typeshed import WriteableBuffer

BUFFER = 256 << 10  # bytes; with Python's default of 8 KiB, reading lines costs three times the CPU
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_SKIPPABLE = b"\x2a\x4d\x18"  # behind the first byte of a frame without data, with which parallel writers begin


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
                refuse_foreign(_head(raw))
            yield raw
            return
        if not is_known:
            _refuse_uncompressed(_head(raw), compression)
    with closing(_Inflated(path, compression)) as inflated:
        file: BinaryIO = io.BufferedReader(inflated, BUFFER)
        if not is_known:
            refuse_foreign(_head(file))
        yield file


class _Inflated(io.RawIOBase):
    """What a compressed file holds, to the last byte before any damage, which is then raised as an OSError.

    pyarrow gives nothing of a call that comes upon damage, so from there on it is asked for single bytes. Zeros after
    the data are no damage.
    """

    def __init__(self, path: Place, compression: Compression) -> None:
        self._path = path
        self._compression = compression
        self._end: int | None = None
        self._stream = self._open()
        self._given = 0
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
        piece = 1 if self._damaged else len(into)
        try:
            data = self._stream.read(piece)
        except OSError as error:
            if self._damaged:
                raise limit_exceeded(self._path, self._compression) or error from None
            self._stream.close()
            if self._end is None:
                self._end = data_end(self._path, self._compression)
                self._damaged = self._end is None
            else:
                self._damaged = True
            self._stream = self._open()
            skip(self._stream, self._given)
            return self.readinto(buffer)
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


def _head(file: BinaryIO) -> bytes:
    return cast("io.BufferedReader", file).peek(HEAD)[:HEAD]


def _refuse_uncompressed(head: bytes, compression: Compression) -> None:
    if head.startswith(GZIP if compression == "gzip" else ZSTD):
        return
    if compression == "zstd" and head[1:4] == _SKIPPABLE:
        return
    reason = f"it is not compressed with {compression}"
    if (found := what_it_is(head)) is not None:
        other, remedy = found
        raise Unsuitable(f"{reason}, but {other}", remedy)
    raise OSError(reason)
