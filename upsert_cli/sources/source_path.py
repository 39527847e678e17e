"""Where rows come from: a file of this machine, a file at an address, or a collection."""

from __future__ import annotations

import abc
import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias, cast

from upsert_cli.errors import UsageFault
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.remote import WEB_SCHEMES, FileInfo, RemoteStream, retry_transient, scheme_of

if TYPE_CHECKING:
    from upsert_cli.sources.item import Row
    from upsert_cli.sources.source import Fingerprint

BLOCK = 1 << 20  # bytes requested at once, as many as the Parquet reader takes of a column


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
        return cast("BinaryIO", io.BufferedReader(self._connect(), max(BLOCK, buffering)))

    def info(self) -> FileInfo:
        """Ask for the current description of the file; raise OSError like `open`."""
        with closing(self._connect()) as file:
            return file.info

    def _connect(self) -> RemoteStream:
        def connect() -> RemoteStream:
            # Imported here, since HTTP and object stores take longer to load than all formats.
            if scheme_of(self.address) in WEB_SCHEMES:
                from upsert_cli.sources.http_file import HttpFile

                return HttpFile(self.address, retry_for=self.retry_for)
            from upsert_cli.sources.object_stores import ObjectFile

            return ObjectFile(self.address, retry_for=self.retry_for)

        return retry_transient(connect, seconds=self.retry_for)


class CollectionReader(abc.ABC):
    """The records of a collection as rows whose values are items; `str` gives the address, spelled in one way.

    The store implements it.
    """

    @abc.abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Return the state of the collection, as far as the store shows it.

        Raises:
            FileNotFoundError: There is no such collection.
            UpsertCliError: The store cannot be reached or read.
        """

    @abc.abstractmethod
    def count(self) -> int | None:
        """Return the number of rows, or None if it costs too much to know."""

    @abc.abstractmethod
    def read(self, *, row: int, offset: int) -> Iterator[Row]:
        """Yield every row after the first `row` ones; `offset` came with the last of them."""

    @abc.abstractmethod
    def boundaries(self, *, rows: int) -> Iterator[tuple[int, int]]:
        """Yield where to divide the rows for several readers, as `Format.boundaries` does."""


FilePath: TypeAlias = Path | RemoteFile
"""A file to read."""

SourcePath: TypeAlias = FilePath | CollectionReader
"""A file, or a collection, to read."""


def no_collections(name: str) -> CollectionReader:
    """Raise the error for a collection where only files can be read."""
    raise UsageFault(message=f"{name} is a collection, and only files are read here")
