"""The frames of compressed files: where the data ends, and whether a frame needs more than can be offered here.

gzip calls a part that can be decompressed by itself a member, zstd calls it a frame; a file may have several. Frames
are walked without decompressing them; their layout is that of RFC 8878.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

from upsert_cli.sources.formats import Compression
from upsert_cli.sources.remote import FilePath
from upsert_cli.sources.unreadable import Unsuitable

MAX_WINDOW = 128 << 20  # bytes; the default of zstd's decoder, and so of pyarrow
MAX_WINDOW_LOG = 31  # the largest that the zstd command takes
CHUNK = 256 << 10  # bytes read at once
DECOMPRESSED = 1 << 20  # bytes decompressed at once

_WITH_HEADER = 16 + zlib.MAX_WBITS

_MAGIC = 0xFD2FB528
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_DICTIONARY_BYTES = (0, 1, 2, 4)  # by the two lowest bits of the descriptor
_SIZE_BYTES = (0, 2, 4, 8)  # by its two highest bits; 1 instead of 0 in a frame of a single segment
_IS_SINGLE, _HAS_CHECKSUM = 0x20, 0x04  # bits of the descriptor
_RLE_BLOCK = 1
_BLOCK_HEADER = 3  # bytes
_CHECKSUM = 4  # bytes


def data_end(path: FilePath, compression: Compression) -> int | None:
    """Return the offset of the zeros that pad a file, as on tapes and block stores.

    None if the file ends otherwise: with an incomplete member, or with other bytes.
    """
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\0":
            return None
        file.seek(0)
        end = _end_of_gzip(file) if compression == "gzip" else _end_of_zstd(file)
        if not end:
            return None
        file.seek(end)
        is_padded = False
        while chunk := file.read(CHUNK):
            if chunk.strip(b"\0"):
                return None
            is_padded = True
    return end if is_padded else None


def limit_exceeded(path: FilePath, compression: Compression) -> Unsuitable | None:
    """Return an error if a file cannot be read because it needs a large window or a dictionary."""
    if compression != "zstd":
        return None
    with path.open("rb") as file:
        for frame in _frames(file):
            if frame.window > MAX_WINDOW:
                return Unsuitable(
                    f"it was compressed with a window of {frame.window >> 20} MiB, "
                    f"and at most {MAX_WINDOW >> 20} MiB can be read here",
                    f"`zstd -dc --long={MAX_WINDOW_LOG} FILE | upsert-cli run - --format FORMAT` loads it",
                )
            if frame.dictionary:
                return Unsuitable(
                    f"it was compressed with the dictionary {frame.dictionary}",
                    "`zstd -dc -D DICTIONARY FILE | upsert-cli run - --format FORMAT` loads it",
                )
    return None


def _end_of_gzip(file: BinaryIO) -> int | None:
    """Return the offset after the last complete member, if what follows does not begin like another one."""
    end = position = 0
    member = None
    while chunk := file.read(CHUNK):
        position += len(chunk)
        while chunk:
            if member is None:
                if chunk[0] == 0:
                    return end
                member = zlib.decompressobj(_WITH_HEADER)
            try:
                member.decompress(chunk, DECOMPRESSED)
            except zlib.error:
                return None
            chunk = member.unconsumed_tail
            if member.eof:
                chunk = member.unused_data
                end, member = position - len(chunk), None
    return end if member is None else None


def _end_of_zstd(file: BinaryIO) -> int | None:
    end = None
    for frame in _frames(file):
        end = frame.begin if frame.end is None else frame.end
    return end


# -- frames of zstd -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """A frame, or what follows the last complete one."""

    begin: int
    """Offset of its first byte."""

    end: int | None
    """Offset of the byte after it; None if it is incomplete or not a frame."""

    window: int
    """Bytes that a decoder has to keep; 0 in a frame without data."""

    dictionary: int
    """Number of the dictionary that it needs; 0 for none."""


def _frames(file: BinaryIO) -> Iterator[_Frame]:
    """Yield the frames of a file that is at its first byte; only the last one may be incomplete."""
    begin: int | None = 0
    while begin is not None and (magic := file.read(4)):
        window = dictionary = 0
        end = None
        with suppress(EOFError):
            number = int.from_bytes(magic, "little")
            if number in _SKIPPABLE:
                end = _skip_bytes(file, _number(file, 4))
            elif number == _MAGIC:
                window, dictionary, has_checksum = _header(file)
                end = _skip_blocks(file, checksum=_CHECKSUM if has_checksum else 0)
        yield _Frame(begin=begin, end=end, window=window, dictionary=dictionary)
        begin = end


def _header(file: BinaryIO) -> tuple[int, int, bool]:
    """Return the window, the dictionary, and whether a checksum follows the blocks."""
    descriptor = _number(file, 1)
    is_single = bool(descriptor & _IS_SINGLE)
    window = 0
    if not is_single:
        exponent, eighths = divmod(_number(file, 1), 8)
        window = (1 << 10 + exponent) // 8 * (8 + eighths)
    dictionary = _number(file, _DICTIONARY_BYTES[descriptor & 3])
    size = _number(file, _SIZE_BYTES[descriptor >> 6] or int(is_single))
    return size if is_single else window, dictionary, bool(descriptor & _HAS_CHECKSUM)


def _skip_blocks(file: BinaryIO, *, checksum: int) -> int:
    is_last = False
    while not is_last:
        header = _number(file, _BLOCK_HEADER)
        is_last = bool(header & 1)
        _skip_bytes(file, 1 if header >> 1 & 3 == _RLE_BLOCK else header >> 3)
    return _skip_bytes(file, checksum)


def _number(file: BinaryIO, size: int) -> int:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return int.from_bytes(data, "little")


def _skip_bytes(file: BinaryIO, size: int) -> int:
    """Skip some bytes, which have to be there, and return the offset after them."""
    if size:
        file.seek(size - 1, os.SEEK_CUR)
        _number(file, 1)
    return file.tell()
