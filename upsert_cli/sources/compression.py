"""Text files, compressed or not, as streams of bytes with bounded memory.

gzip calls a part that can be decompressed by itself a member, zstd calls it a frame; a file may have several. Damage
ends a stream only after the last good byte, and a file of another kind is named at once.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from upsert_cli.sources.formats import Compression, TextFormat
from upsert_cli.sources.item import Row
from upsert_cli.sources.remote import FilePath, RemoteFile
from upsert_cli.sources.unreadable import GZIP, HEAD, ZSTD, Unsuitable, kind_of_file, refuse_foreign

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER = 256 << 10  # bytes; with Python's default of 8 KiB, reading lines costs three times the CPU
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

PIECE = 1 << 10  # bytes decompressed at once; zstd makes at most 32 MiB of them
MAX_WINDOW = 128 << 20  # bytes that a decoder has to keep; the limit of the zstd command
MAX_WINDOW_LOG = 31  # the largest window that the zstd command takes with --long
ZSTD_HEADER = 18  # bytes; the longest header of a frame, by RFC 8878

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
        file = raw
        if compression is not None:
            if not is_known:
                _refuse_uncompressed(_head(raw), compression)
            file = cast("BinaryIO", io.BufferedReader(_Pieces(_decompressed(path, raw, compression)), BUFFER))
        if not is_known:
            refuse_foreign(_head(file))
        yield file


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a file."""

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


def _decompressed(path: FilePath, file: BinaryIO, compression: Compression) -> Iterator[bytes]:
    """Yield the content of a compressed file, open at its first byte, up to the last byte before any damage."""
    frames = _Frames(compression)
    good = 0
    while piece := file.read(PIECE):
        try:
            content = frames.feed(piece)
        except OSError:
            break
        yield content
        good += len(piece)
    else:
        frames.check_end()
        return
    # A decoder returns nothing for a piece in which it meets damage, so that piece is fed again byte by byte.
    frames = _Frames(compression)
    with path.open("rb", buffering=BUFFER) as again:
        while good:
            piece = again.read(min(PIECE, good))
            frames.feed(piece)
            good -= len(piece)
        while byte := again.read(1):
            yield frames.feed(byte)
    frames.check_end()


class _Decoder(Protocol):
    """Decompresses one frame."""

    @property
    def eof(self) -> bool:
        """The frame has ended."""

    @property
    def unused_data(self) -> bytes:
        """The bytes after the end of the frame."""

    def decompress(self, data: bytes, /) -> bytes:
        """Return the content of the next bytes."""


class _Frames:
    """Decompresses a file frame by frame; zeros may follow the last one, as on tapes and block stores."""

    def __init__(self, compression: Compression) -> None:
        self._decoder_of = _gzip_decoder if compression == "gzip" else _zstd_decoder
        self._decoder: _Decoder | None = None
        self._header = b""
        """The first bytes of a frame, while there are too few to know its decoder."""

        self._is_padding = False

    def feed(self, data: bytes) -> bytes:
        """Return the content of the next bytes of the file.

        Raises:
            OSError: They are damaged, or cannot be decompressed here.
        """
        content = []
        while data:
            if self._decoder is None:
                data, self._header = self._header + data, b""
                self._is_padding |= not data[0]
                if self._is_padding:
                    if data.strip(b"\0"):
                        raise OSError("other bytes follow the zeros at its end")
                    break
                self._decoder = self._decoder_of(data)
                if self._decoder is None:
                    self._header = data
                    break
            content.append(_decoded(self._decoder, data))
            data = b""
            if self._decoder.eof:
                data, self._decoder = self._decoder.unused_data, None
        return b"".join(content)

    def check_end(self) -> None:
        """Raise OSError if the file ends inside a frame."""
        if self._decoder is not None or self._header:
            raise OSError("it is cut off: its compressed data has no end")


def _decoded(decoder: _Decoder, data: bytes) -> bytes:
    try:
        return decoder.decompress(data)
    except MemoryError:
        raise
    except Exception as error:  # zlib and zstandard have a class each
        raise OSError(f"its compressed data is damaged ({error})") from error


def _gzip_decoder(_: bytes) -> _Decoder:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _zstd_decoder(header: bytes) -> _Decoder | None:
    """Return the decoder for a frame that begins with these bytes, or None if there are too few.

    Raises:
        Unsuitable: The frame needs a large window or a dictionary.
    """
    import zstandard

    try:
        frame = zstandard.get_frame_parameters(header)
    except zstandard.ZstdError as error:
        if len(header) < ZSTD_HEADER:
            return None
        raise OSError(f"its compressed data is damaged ({error})") from error
    if frame.window_size > MAX_WINDOW:
        raise Unsuitable(
            f"it was compressed with a window of {frame.window_size >> 20} MiB, "
            f"and at most {MAX_WINDOW >> 20} MiB can be read here",
            f"`zstd -dc --long={MAX_WINDOW_LOG} FILE | upsert-cli run - --format FORMAT` loads it",
        )
    if frame.dict_id:
        raise Unsuitable(
            f"it was compressed with the dictionary {frame.dict_id}",
            "`zstd -dc -D DICTIONARY FILE | upsert-cli run - --format FORMAT` loads it",
        )
    return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()


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
