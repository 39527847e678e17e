"""A compressed file that cannot be read as a whole -> where its data ends, or what kept it from being read.

gzip calls a part that stands for itself a member, zstd calls it a frame; a file may have several.
"""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO

from upsert_cli.sources.foreign import Unsuitable
from upsert_cli.sources.remote import Place
from upsert_cli.sources.suffixes import Compression
from upsert_cli.sources.zstd_frames import frames

MAX_WINDOW = 128 << 20  # bytes; the default of zstd's decoder, and so of pyarrow
MAX_WINDOW_LOG = 31  # the largest that the zstd command takes
CHUNK = 256 << 10  # bytes read at once
INFLATED = 1 << 20  # bytes inflated at once

_WITH_HEADER = 16 + zlib.MAX_WBITS


def data_end(path: Place, compression: Compression) -> int | None:
    """Return the offset at which the zeros begin that fill a file up, as tapes and block stores do.

    None if the file ends otherwise: with a member that is not whole, or with other bytes.
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
        is_filled = False
        while chunk := file.read(CHUNK):
            if chunk.strip(b"\0"):
                return None
            is_filled = True
    return end if is_filled else None


def limit_exceeded(path: Place, compression: Compression) -> Unsuitable | None:
    """Return what a sound file needs that cannot be offered here, if that is why it cannot be read."""
    if compression != "zstd":
        return None
    with path.open("rb") as file:
        for frame in frames(file):
            if frame.batch > MAX_WINDOW:
                return Unsuitable(
                    f"it was compressed with a window of {frame.batch >> 20} MiB, "
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
    """Return the offset after the last whole member, if what follows does not begin like another one."""
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
                member.decompress(chunk, INFLATED)
            except zlib.error:
                return None
            chunk = member.unconsumed_tail  # what is left of it
            if member.eof:
                chunk = member.unused_data
                end, member = position - len(chunk), None
    return end if member is None else None


def _end_of_zstd(file: BinaryIO) -> int | None:
    end = None
    for frame in frames(file):
        end = frame.begin if frame.end is None else frame.end
    return end
