"""Files of text formats, compressed or not, as streams of bytes for the reader of the format."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from upsert_cli.sources.compression import SKIPPABLE, decompressed
from upsert_cli.sources.formats import GZIP, HEAD, ZSTD, Compression, Unsuitable, kind_of_file, refuse_other_kind
from upsert_cli.sources.item import Row
from upsert_cli.sources.remote import FilePath, RemoteFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER = 256 << 10  # bytes; with Python's default of 8 KiB, reading lines costs three times the CPU
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class TextFile:
    """The rows of a file in a text format; a `RowReader`."""

    path: FilePath

    compression: Compression | None

    rows: Callable[..., Iterator[Row]]
    """Takes a file that is open at its first byte, `row` and `offset`; yields the rows like `RowReader.read`."""

    ends: Callable[[BinaryIO], Iterator[tuple[int, int]]]
    """Takes a file that is open at its first byte; yields the number of each row and the offset after it."""

    def read(self, *, row: int, offset: int) -> Iterator[Row]:
        """Yield the rows."""
        with _opened(self.path, self.compression, is_known=offset > 0) as file:
            yield from self.rows(file, row=row, offset=offset)

    def count(self) -> int | None:
        """Return the number of rows, or None for a remote file, which would be downloaded, and for a damaged file.

        The good rows of a damaged file are loaded, and reading the others reports the damage.
        """
        if isinstance(self.path, RemoteFile):
            return None
        try:
            with _opened(self.path, self.compression) as file:
                return sum(1 for _ in self.ends(file))
        except OSError as error:
            if self.compression is None or isinstance(error, Unsuitable):
                raise
            return None

    def end_of_rows(self, pieces: Iterator[bytes], *, rows: int) -> int | None:
        """Return the offset after the first rows of a stream, without taking more pieces of it than necessary.

        Returns:
            None if there are fewer rows, or if they cannot be counted.
        """
        if self.compression is None:
            file = cast("BinaryIO", io.BufferedReader(_Pieces(pieces), BUFFER))
            with suppress(OSError):  # the header cannot be used, which reading the rows reports
                return next((end for count, (_, end) in enumerate(self.ends(file), start=1) if count == rows), None)
        deque(pieces, maxlen=0)  # takes all pieces
        return None

    def boundaries(self, *, rows: int, size: int) -> Iterator[tuple[int, int]] | None:
        """Return boundaries, or None for a compressed file, which can only be read from its first byte on."""
        return self._boundaries(rows=rows, size=size) if self.compression is None else None

    def _boundaries(self, *, rows: int, size: int) -> Iterator[tuple[int, int]]:
        with _opened(self.path, None) as file:
            row = offset = last_row = last_offset = 0
            for row, offset in self.ends(file):
                if row - last_row >= rows or offset - last_offset >= size:
                    last_row, last_offset = row, offset
                    yield row, offset
            if row > last_row:
                yield row, offset


@contextmanager
def _opened(path: FilePath, compression: Compression | None, *, is_known: bool = False) -> Iterator[BinaryIO]:
    """Open a text file at its first byte.

    Args:
        path: The file.
        compression: Of the file, if any.
        is_known: The kind of the file was checked before, so its first bytes are not fetched again.

    Raises:
        OSError: The file cannot be opened, or is of another kind; while it is read, also that it is damaged.
    """
    with path.open("rb", buffering=BUFFER) as raw:
        file = raw
        if compression is not None:
            if not is_known:
                _refuse_uncompressed(_head(raw), compression)
            file = cast("BinaryIO", io.BufferedReader(_Pieces(decompressed(raw, compression)), BUFFER))
        if not is_known:
            refuse_other_kind(_head(file))
        yield file


class _Pieces(io.RawIOBase):
    """A file that is made of pieces of bytes."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        into = memoryview(buffer).cast("B")
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        data, self._rest = self._rest[: len(into)], self._rest[len(into) :]
        into[: len(data)] = data
        return len(data)


def skip_byte_order_mark(file: BinaryIO) -> int:
    """Skip the mark that some editors write at the start of a file, and return its size."""
    if not _head(file).startswith(BYTE_ORDER_MARK):
        return 0
    return len(file.read(len(BYTE_ORDER_MARK)))


def skip(file: BinaryIO, size: int) -> None:
    """Skip `size` bytes, which in a compressed file have to be decompressed.

    Raises:
        OSError: The file is damaged, or shorter.
    """
    if file.seekable():
        file.seek(size, os.SEEK_CUR)
        return
    while size:
        piece = file.read(min(size, BUFFER))
        if not piece:
            raise OSError(f"it ends {size} bytes before the position to continue at")
        size -= len(piece)


def skip_line(file: BinaryIO) -> int:
    """Read to the end of the line and return the number of its bytes."""
    skipped = 0
    while piece := file.readline(BUFFER):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _head(file: BinaryIO) -> bytes:
    return cast("io.BufferedReader", file).peek(HEAD)[:HEAD]


def _refuse_uncompressed(head: bytes, compression: Compression) -> None:
    """Raise OSError if a file with these first bytes is not compressed in this way."""
    if head.startswith(GZIP if compression == "gzip" else ZSTD):
        return
    if compression == "zstd" and head[1:4] == SKIPPABLE:  # with which parallel writers begin
        return
    reason = f"it is not compressed with {compression}"
    if (found := kind_of_file(head)) is not None:
        other, remedy = found
        raise Unsuitable(f"{reason}, but {other}", remedy.replace("FILE", "PACKED"))
    raise OSError(reason)
