"""The frames of a zstd file, without unpacking them: where each ends, and what a decoder needs for it.

The layout is that of RFC 8878.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

_MAGIC = 0xFD2FB528
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_DICTIONARY_BYTES = (0, 1, 2, 4)  # by the two lowest bits of the descriptor
_SIZE_BYTES = (0, 2, 4, 8)  # by its two highest bits; 1 instead of 0 in a frame of a single segment
_IS_SINGLE, _HAS_CHECKSUM = 0x20, 0x04  # bits of the descriptor
_RLE_BLOCK = 1
_BLOCK_HEADER = 3  # bytes
_CHECKSUM = 4  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ZstdFrame:
    """A frame, or what follows the last whole one."""

    begin: int
    """Offset of its first byte."""

    end: int | None
    """Offset of the byte after it; None: it is not whole, or no frame."""

    batch: int
    """Bytes that a decoder has to keep; 0 where there is no data."""

    dictionary: int
    """Number of the dictionary that it needs; 0 for none."""


def frames(file: BinaryIO) -> Iterator[ZstdFrame]:
    """Yield the frames of a file that is at its first byte; only the last may be one that is not whole."""
    begin: int | None = 0
    while begin is not None and (magic := file.read(4)):
        batch = dictionary = 0
        end = None
        with suppress(EOFError):
            number = int.from_bytes(magic, "little")
            if number in _SKIPPABLE:
                end = _pass_over(file, _number(file, 4))
            elif number == _MAGIC:
                batch, dictionary, has_checksum = _header(file)
                end = _pass_blocks(file, checksum=_CHECKSUM if has_checksum else 0)
        yield ZstdFrame(begin=begin, end=end, batch=batch, dictionary=dictionary)
        begin = end


def _header(file: BinaryIO) -> tuple[int, int, bool]:
    """Return the batch, the dictionary, and whether a checksum follows the blocks."""
    descriptor = _number(file, 1)
    is_single = bool(descriptor & _IS_SINGLE)
    batch = 0
    if not is_single:
        exponent, eighths = divmod(_number(file, 1), 8)
        batch = (1 << 10 + exponent) // 8 * (8 + eighths)
    dictionary = _number(file, _DICTIONARY_BYTES[descriptor & 3])
    size = _number(file, _SIZE_BYTES[descriptor >> 6] or int(is_single))
    return size if is_single else batch, dictionary, bool(descriptor & _HAS_CHECKSUM)


def _pass_blocks(file: BinaryIO, *, checksum: int) -> int:
    is_last = False
    while not is_last:
        header = _number(file, _BLOCK_HEADER)
        is_last = bool(header & 1)
        _pass_over(file, 1 if header >> 1 & 3 == _RLE_BLOCK else header >> 3)
    return _pass_over(file, checksum)


def _number(file: BinaryIO, size: int) -> int:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return int.from_bytes(data, "little")


def _pass_over(file: BinaryIO, size: int) -> int:
    """Pass over some bytes, which have to be there, and return the offset after them."""
    if size:
        file.seek(size - 1, os.SEEK_CUR)
        _number(file, 1)
    return file.tell()
