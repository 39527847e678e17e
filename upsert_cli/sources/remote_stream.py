"""An open file on a server, and repeated requests for its bytes."""

from __future__ import annotations

import abc
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from upsert_cli.retry import call_with_retries

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_T = TypeVar("_T")


class TransientError(OSError):
    """Raised when another try may succeed, for example after a broken connection or for a busy server."""


def retry_transient(call: Callable[[], _T], *, seconds: float) -> _T:
    """Return the result of a call, which is repeated for some seconds while it raises `TransientError`."""
    return call_with_retries(call, is_passing=lambda error: isinstance(error, TransientError), seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """A server's description of a file."""

    size: int | None
    """Bytes; None if the server does not state them."""

    mtime_ns: int
    """Nanoseconds since 1970; 0 if the server does not state the time of the last change."""

    etag: str | None
    """A text that changes with the content, in the server's own form."""

    coding: str = "identity"
    """The compression in which a web server sends the file."""


class RemoteStream(io.RawIOBase):
    """An open file on a server, for readers of Python and pyarrow."""

    def __init__(self, info: FileInfo, *, retry_for: float) -> None:
        """Begin at the first byte, and repeat requests that fail for `retry_for` seconds."""
        self.info = info
        self._retry_for = retry_for
        self._position = 0

    @abc.abstractmethod
    def read_at(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from a position on; no bytes only at the end.

        Raises:
            TransientError: Another try may succeed.
            OSError: The bytes cannot be read.
        """

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; raise OSError for a position from the end of a file of unknown size."""
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            if self.info.size is None:
                raise OSError("its server does not say how long it is")
            offset += self.info.size
        self._position = offset
        return offset

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read the next bytes into a buffer and return their number."""
        into = memoryview(buffer).cast("B")
        data = retry_transient(lambda: self.read_at(self._position, len(into)), seconds=self._retry_for)
        into[: len(data)] = data
        self._position += len(data)
        return len(data)
