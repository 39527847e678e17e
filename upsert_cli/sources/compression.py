"""The content of gzip and zstd files, piece by piece with bounded memory, up to the last byte before any damage.

A file has one or more parts that are compressed separately: gzip calls them members, zstd and this module frames.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeAlias, cast

from upsert_cli.sources.formats import Compression, Unsuitable

PIECE = 1 << 10  # bytes decompressed at once; zstd makes at most 32 MiB of them
GZIP_LEVEL = 6  # the level of the gzip command; 9 takes twice the time for 1 % less
MAX_WINDOW = 128 << 20  # bytes that a decoder has to keep; the limit of the zstd command
MAX_WINDOW_LOG = 31  # the largest value of --long of the zstd command
SKIPPABLE = b"\x2a\x4d\x18"  # after the first byte of a zstd frame without data, such as a table of offsets
ZSTD_HEADER = 18  # bytes; the longest header of a frame, by RFC 8878

_Decoder: TypeAlias = Any
"""A `decompressobj` of zlib or zstandard, for one frame: `decompress`, `eof` and `unused_data`."""


def decompressed(file: BinaryIO, compression: Compression) -> Iterator[bytes]:
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
    file.seek(0)
    while good:
        piece = file.read(min(PIECE, good))
        frames.feed(piece)
        good -= len(piece)
    while byte := file.read(1):
        yield frames.feed(byte)
    frames.check_end()


@contextmanager
def compressing(file: BinaryIO, compression: Compression) -> Iterator[BinaryIO]:
    """Yield a stream whose content is written to a file, compressed; the file stays open."""
    if compression == "gzip":
        # Without a name and a time, so that equal content makes equal files.
        with gzip.GzipFile("", mode="wb", compresslevel=GZIP_LEVEL, fileobj=file, mtime=0) as stream:
            yield cast("BinaryIO", stream)
        return
    import zstandard

    with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as stream:
        yield stream


class _Frames:
    """The frames of a compressed file; zeros may follow the last one, as on tapes and block stores."""

    def __init__(self, compression: Compression) -> None:
        self._decoder_of = _gzip_decoder if compression == "gzip" else _zstd_decoder
        self._decoder: _Decoder | None = None
        self._header = b""
        """The first bytes of a frame, as long as they are too few to choose its decoder."""

        self._is_padding = False

    def feed(self, data: bytes) -> bytes:
        """Return the content of the next bytes of the file.

        Raises:
            OSError: The bytes are damaged, or cannot be decompressed here.
        """
        content = []
        while data:
            if self._decoder is None:
                data = self._begin_frame(data)
            if self._decoder is None:
                break
            content.append(_decoded(self._decoder, data))
            data = b""
            if self._decoder.eof:
                data, self._decoder = self._decoder.unused_data, None
        return b"".join(content)

    def _begin_frame(self, data: bytes) -> bytes:
        """Choose the decoder of a frame, if there is one and its first bytes are complete; return these bytes."""
        data, self._header = self._header + data, b""
        self._is_padding |= not data[0]
        if self._is_padding:
            if data.strip(b"\0"):
                raise OSError("other bytes follow the zeros at its end")
            return data
        self._decoder = self._decoder_of(data)
        if self._decoder is None:
            self._header = data
        return data

    def check_end(self) -> None:
        """Raise OSError if the file ends inside a frame."""
        if self._decoder is not None or self._header:
            raise OSError("it is cut off: its compressed data has no end")


def _decoded(decoder: _Decoder, data: bytes) -> bytes:
    try:
        content: bytes = decoder.decompress(data)
    except MemoryError:
        raise
    except Exception as error:  # the classes of zlib and zstandard have no other parent
        raise OSError(f"its compressed data is damaged ({error})") from error
    return content


def _gzip_decoder(_: bytes) -> _Decoder:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _zstd_decoder(header: bytes) -> _Decoder | None:
    """Return the decoder for a frame that begins with these bytes, or None if they are too few.

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
            f"`zstd -dc --long={MAX_WINDOW_LOG} PACKED | upsert-cli run - --format FORMAT` loads it",
        )
    if frame.dict_id and header[1:4] != SKIPPABLE:  # which has its kind in the place of a dictionary
        raise Unsuitable(
            f"it was compressed with the dictionary {frame.dict_id}",
            "`zstd -dc -D DICTIONARY PACKED | upsert-cli run - --format FORMAT` loads it",
        )
    return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
