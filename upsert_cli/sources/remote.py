"""Files at an address: opened like local ones, read from any position, and requested again if a connection breaks."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol, TypeAlias, TypeVar, cast

from upsert_cli.retry import RETRY_FOR, call_with_retries
from upsert_cli.sources.addresses import WEB_SCHEMES, scheme_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK = 1 << 20  # bytes requested at once, as many as the Parquet reader takes of a column

_T = TypeVar("_T")


class TransientError(OSError):
    """Raised for a failure that another try may overcome, such as a broken connection or a busy server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """A server's description of a file."""

    size: int | None
    """Bytes; None if the server does not say."""

    mtime_ns: int
    """Nanoseconds since 1970; 0 if the server does not say."""

    etag: str | None
    """Changes with the content; in the server's own form."""

    coding: str = "identity"
    """The compression in which a web server sends the file."""


class RangeReader(Protocol):
    """An open file on a server."""

    info: FileInfo

    def read_at(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from a position on; no bytes only at the end.

        Raises:
            TransientError: Another try may succeed.
            OSError: It would not.
        """

    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that is read over the network; has the methods of `pathlib.Path` that readers need."""

    address: str
    """Such as `s3://bucket/folder/a.jsonl`."""

    retry_for: float = field(default=RETRY_FOR, compare=False)
    """How long to repeat a request that fails, in seconds."""

    def __str__(self) -> str:
        return self.address

    def open(self, mode: Literal["rb"] = "rb", buffering: int = io.DEFAULT_BUFFER_SIZE) -> BinaryIO:  # noqa: ARG002
        """Open the file at its first byte; raise OSError if it cannot be reached, does not exist or is forbidden."""
        return cast("BinaryIO", io.BufferedReader(_RemoteStream(self._connect(), self.retry_for), buffering))

    def info(self) -> FileInfo:
        """Ask for the current description of the file; raise OSError like `open`."""
        with closing(self._connect()) as file:
            return file.info

    def _connect(self) -> RangeReader:
        return retry_transient(self._try_to_connect, seconds=self.retry_for)

    def _try_to_connect(self) -> RangeReader:
        # Imported here, since HTTP and object stores take longer to load than all formats.
        if scheme_of(self.address) in WEB_SCHEMES:
            from upsert_cli.sources.http_file import HttpFile

            return HttpFile(self.address, retry_for=self.retry_for)
        from upsert_cli.sources.object_stores import ObjectFile

        return ObjectFile(self.address, retry_for=self.retry_for)


FilePath: TypeAlias = Path | RemoteFile
"""A file to read."""


class _RemoteStream(io.RawIOBase):
    """A file on a server as Python and pyarrow read files."""

    def __init__(self, file: RangeReader, retry_for: float) -> None:
        self._file = file
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
            if self._file.info.size is None:
                raise OSError("its server does not say how long it is")
            offset += self._file.info.size
        self._position = offset
        return offset

    def readinto(self, buffer: WriteableBuffer) -> int:
        into = memoryview(buffer).cast("B")
        if not into:
            return 0
        begin = self._position - self._block_start
        if not 0 <= begin < len(self._block):
            size = max(BLOCK, len(into))
            self._block = retry_transient(lambda: self._file.read_at(self._position, size), seconds=self._retry_for)
            self._block_start, begin = self._position, 0
        data = self._block[begin : begin + len(into)]
        into[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._block = b""
        super().close()


def retry_transient(call: Callable[[], _T], *, seconds: float) -> _T:
    """Call, and repeat the call for some time while it raises `TransientError`."""
    return call_with_retries(call, is_passing=lambda error: isinstance(error, TransientError), seconds=seconds)
