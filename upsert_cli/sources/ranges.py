"""A file at the other end of a network -> bytes from any place on, asked for again where a connection breaks off."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar, cast

from upsert_cli.retry import patiently

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 1 << 20  # bytes asked for at once, as many as the Parquet reader takes of a column

_T = TypeVar("_T")


class Unsteady(OSError):
    """Raised for a fault that may pass: a connection that broke off, a server that is busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a server says about a file."""

    size: int | None
    """Bytes; None where it does not say."""

    mtime_ns: int
    """Nanoseconds since 1970; 0 where it does not say."""

    etag: str | None
    """What changes with the content, in the server's own form."""


class Ranges(Protocol):
    """An open file of a server."""

    facts: Facts

    def read_at(self, position: int, size: int) -> bytes:
        """Returns up to `size` bytes from a place on; none only at the end.

        Raises:
            Unsteady: It may work if it is tried again.
            OSError: It will not.
        """

    def close(self) -> None:
        """Lets go of the connection."""


def ranged_file(ranges: Ranges, *, retry_for: float, buffering: int) -> BinaryIO:
    """Return an open file of a server as Python and pyarrow read files; closing it closes `ranges` as well.

    Args:
        ranges: The file.
        retry_for: How long to repeat a request that fails, in seconds.
        buffering: Bytes that the reader holds.
    """
    return cast("BinaryIO", io.BufferedReader(_RangedFile(ranges, retry_for), buffering))


class _RangedFile(io.RawIOBase):
    def __init__(self, ranges: Ranges, retry_for: float) -> None:
        self._ranges = ranges
        self._retry_for = retry_for
        self._position = 0
        self._block = b""
        self._block_start = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            if self._ranges.facts.size is None:
                raise OSError("its server does not say how long it is")
            offset += self._ranges.facts.size
        self._position = offset
        return offset

    def readinto(self, buffer: WriteableBuffer) -> int:
        into = memoryview(buffer).cast("B")
        if not into:
            return 0
        place = self._position - self._block_start
        if not 0 <= place < len(self._block):
            size = max(BLOCK, len(into))
            self._block = steadily(lambda: self._ranges.read_at(self._position, size), seconds=self._retry_for)
            self._block_start, place = self._position, 0
        data = self._block[place : place + len(into)]
        into[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._ranges.close()
            self._block = b""
        super().close()


def steadily(call: Callable[[], _T], *, seconds: float) -> _T:
    """Call, and call again for some time as long as the error may pass."""
    return patiently(call, is_passing=lambda error: isinstance(error, Unsteady), seconds=seconds)
