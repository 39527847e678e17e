"""Files on web servers and in object stores, with the methods of files on this machine."""

from __future__ import annotations

import io
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias, cast

from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.addresses import WEB_SCHEMES, is_address, scheme_of
from upsert_cli.sources.remote_stream import FileInfo, RemoteStream, retry_transient

BLOCK = 1 << 20  # bytes requested at once, as many as the Parquet reader takes of a column


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file on a server, with the methods of `pathlib.Path` that readers need."""

    address: str
    """Such as `s3://bucket/folder/a.jsonl`."""

    retry_for: float = field(default=RETRY_FOR, compare=False)
    """How long to repeat a request that fails, in seconds."""

    def __str__(self) -> str:
        return self.address

    def open(self, mode: Literal["rb"] = "rb", buffering: int = io.DEFAULT_BUFFER_SIZE) -> BinaryIO:  # noqa: ARG002
        """Open the file at its first byte; raise OSError if it cannot be reached, does not exist or is forbidden."""
        return cast("BinaryIO", io.BufferedReader(self._connect(), max(BLOCK, buffering)))

    def info(self) -> FileInfo:
        """Request the current description of the file; raise OSError like `open`."""
        with closing(self._connect()) as file:
            return file.info

    def _connect(self) -> RemoteStream:
        def connect() -> RemoteStream:
            # Late imports, since HTTP and object stores take longer to load than all formats.
            if scheme_of(self.address) in WEB_SCHEMES:
                from upsert_cli.sources.http_file import HttpFile

                return HttpFile(self.address, retry_for=self.retry_for)
            from upsert_cli.sources.object_stores import ObjectFile

            return ObjectFile(self.address, retry_for=self.retry_for)

        return retry_transient(connect, seconds=self.retry_for)


FilePath: TypeAlias = Path | RemoteFile
"""A file to read."""


def file_at(name: str, *, retry_for: float) -> FilePath:
    """Return the file at a path or an address."""
    return RemoteFile(name, retry_for) if is_address(name) else Path(name)
