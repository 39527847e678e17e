"""A file or collection that a task reads, with a fingerprint by which a restart knows that it is still the same.

Standard input and pipes, which can be read only once, are first spooled into a file, so that a restart can read them.
"""

from __future__ import annotations

import abc
import hashlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias

from upsert_cli.errors import SourceChanged, UsageFault, reason_of
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.addresses import is_address
from upsert_cli.sources.folders import valid_unicode
from upsert_cli.sources.formats import Unsuitable, is_collection, not_loadable
from upsert_cli.sources.item import Row
from upsert_cli.sources.readers import RowReader, reader_of
from upsert_cli.sources.remote import FilePath, RemoteFile

EDGE = 4 << 20  # bytes at each end of a file that its digest covers; a change in between shows in the mtime
UNKNOWN_SIZE = -1  # of a remote file whose server does not say its size
OF_COLLECTION = " of a collection"  # ends the digest of a collection's state


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Shows cheaply whether a file or a collection is still the same."""

    size: int
    """Bytes; the records of a collection."""

    mtime_ns: int
    """Nanoseconds since 1970; 0 for a spooled file, whose age means nothing."""

    digest: str
    """SHA-256 in hex of the first and the last 4 MiB, or of all of a spooled file; the etag of a remote file; of a
    collection, the digest of what its store tells of its state, and `OF_COLLECTION`."""

    @classmethod
    def of(cls, path: SourcePath, *, whole: bool) -> Fingerprint:
        """Return the fingerprint of a file; with `whole`, the digest covers all of it and the mtime is left out.

        Raises:
            OSError: The path cannot be read or is not a regular file.
        """
        if isinstance(path, CollectionReader):
            return path.fingerprint()
        if isinstance(path, RemoteFile):
            info = path.info()
            size = UNKNOWN_SIZE if info.size is None else info.size
            return cls(size=size, mtime_ns=info.mtime_ns, digest=info.etag or f"changed {info.mtime_ns}")
        with _opened(path) as file:
            status = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest() if whole else _digest(file, status.st_size)
        return cls(size=status.st_size, mtime_ns=0 if whole else status.st_mtime_ns, digest=digest)

    def changed_from(self, old: Fingerprint) -> str | None:
        """Return the difference, such as `size 120 -> 180 bytes`, or None."""
        if self.size != old.size and UNKNOWN_SIZE in (self.size, old.size):
            return "its server does not always say its size"
        if self.size != old.size and self.digest.endswith(OF_COLLECTION):
            return f"{old.size:,} -> {self.size:,} records"
        if self.size != old.size:
            return f"size {old.size} -> {self.size} bytes"
        if self.digest != old.digest:
            return "same size, other content"
        # Files are copied and touched, so another mtime means a change only if the digest does not cover the file.
        if self.size > 2 * EDGE and self.mtime_ns != old.mtime_ns:
            return "same size, another time of change"
        return None


def _opened(path: Path) -> BufferedReader:
    """Open a regular file; raise OSError for anything else."""
    # Without O_NONBLOCK, opening a pipe would wait for a writer.
    file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError("not a regular file")


def _digest(file: BufferedReader, size: int) -> str:
    """Return the digest of the first `size` bytes of a file: of all of them, or of both ends if they are many."""
    if size <= 2 * EDGE:
        return hashlib.sha256(file.read(size)).hexdigest()
    digest = hashlib.sha256(file.read(EDGE))
    file.seek(size - EDGE)
    digest.update(file.read(EDGE))
    return digest.hexdigest()


class CollectionReader(RowReader):
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


SourcePath: TypeAlias = FilePath | CollectionReader
"""A file, or a collection, to read."""


def no_collections(name: str) -> CollectionReader:
    """Raise the error for a collection where only files can be read."""
    raise UsageFault(message=f"{name} is a collection, and only files are read here")


def not_found(name: str) -> UsageFault:
    """Return the error for a name of nothing."""
    return UsageFault(message=f"{name} does not exist; name a file, a folder or a glob, or `-` for standard input")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file or collection that the user named, not yet opened."""

    name: str
    """As the user would name it, in valid Unicode: `data/a.jsonl`, or `-` for standard input."""

    path: SourcePath
    """Absolute; the file to open."""

    format: str
    """A key of `formats.SUFFIXES`, or `formats.COLLECTION_FORMAT`."""

    spooled: bool = False
    """It can be read only once, so a copy of ours is read."""

    @property
    def reader(self) -> RowReader:
        """Return the reader of its rows."""
        return self.path if isinstance(self.path, CollectionReader) else reader_of(self.path, self.format)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(FoundFile):
    """A file or collection that a task reads, with its fingerprint from when the task was created."""

    fingerprint: Fingerprint

    total: int | None
    """Rows to read."""

    end: int | None = None
    """The number of the last row to read; None for all rows of the file."""

    @classmethod
    def of(cls, found: FoundFile, *, limit: int | None = None) -> Source:
        """Return the source for a file that was found, with its fingerprint and its number of rows, up to a limit.

        Raises:
            UsageFault: It is an address at which there is nothing, or the file has to be converted first.
            SourceUnreadable: It cannot be read, is damaged, or is a pipe that was not spooled.
        """
        try:
            source = cls(
                name=found.name,
                path=found.path,
                format=found.format,
                fingerprint=Fingerprint.of(found.path, whole=found.spooled),
                total=found.reader.count() if limit is None else None,
                spooled=found.spooled,
            )
        except OSError as error:
            if isinstance(error, FileNotFoundError) and isinstance(found.path, RemoteFile):
                raise not_found(found.name) from error
            if isinstance(error, FileNotFoundError) and isinstance(found.path, CollectionReader):
                raise UsageFault(message=f"{found.name}: {error}") from error
            raise not_loadable(found.name, found.format, error) from error
        return source if limit is None else source.first(limit)

    def first(self, limit: int) -> Source:
        """Return the source with its first `limit` rows.

        Raises:
            SourceUnreadable: It cannot be read.
        """
        rows, last = 0, 0
        try:
            for row in itertools.islice(self.reader.read(row=0, offset=0), limit):
                rows, last = rows + 1, row.number
        except OSError as error:
            if not rows or isinstance(error, Unsuitable):
                raise not_loadable(self.name, self.format, error) from error
            return replace(self, total=None, end=None)  # loading the rows before the break reports it
        return replace(self, total=rows, end=last if rows == limit else None)

    def read(self, *, row: int = 0, offset: int = 0) -> Iterator[Row]:
        """Yield the rows after the first `row` ones, up to `end`; `offset` came with the last of those.

        Raises:
            OSError: The file cannot be opened or read any further.
        """
        if self.end is None:
            return self.reader.read(row=row, offset=offset)
        return self._read_to_end(self.end, row, offset)

    def _read_to_end(self, end: int, row: int, offset: int) -> Iterator[Row]:
        if row >= end:
            return
        for each in self.reader.read(row=row, offset=offset):
            yield each
            if each.number >= end:  # the rows after it may not even be readable
                return

    def change(self) -> str | None:
        """Return how the file differs now, in one phrase, or None."""
        try:
            return self._changed()
        except OSError as error:
            return reason_of(error)

    def was_rewritten(self) -> bool:
        """Tell whether bytes of the file have changed or are gone since its fingerprint was taken.

        Bytes that were appended do not count. Of a remote file or a collection, only the size tells.
        """
        known = self.fingerprint
        try:
            if not isinstance(self.path, Path):
                return UNKNOWN_SIZE < Fingerprint.of(self.path, whole=False).size < known.size
            with _opened(self.path) as file:
                return os.fstat(file.fileno()).st_size < known.size or _digest(file, known.size) != known.digest
        except OSError:
            return True

    def check_unchanged(self, *, task_id: str) -> None:
        """Check that a position in the file still means the same to a task.

        Raises:
            SourceChanged: It does not, or the file is gone.
        """
        try:
            how = self._changed()
        except OSError as error:
            raise SourceChanged(name=self.name, how=reason_of(error), task_id=task_id, is_gone=True) from error
        if how is not None:
            raise SourceChanged(name=self.name, how=how, task_id=task_id)

    def _changed(self) -> str | None:
        return Fingerprint.of(self.path, whole=self.spooled).changed_from(self.fingerprint)

    def as_json(self) -> dict[str, Any]:
        """Return the source as plain data in valid Unicode, for the journal."""
        value = asdict(replace(self, path=Path())) | {"path": valid_unicode(str(self.path))}
        if self.end is None:
            del value["end"]
        # A path may be any bytes, but the journal holds only text.
        return value if value["path"] == str(self.path) else value | {"path_bytes": os.fsencode(str(self.path)).hex()}

    @classmethod
    def from_json(
        cls,
        value: dict[str, Any],
        *,
        collection_at: Callable[[str], CollectionReader] = no_collections,
        retry_for: float = RETRY_FOR,
    ) -> Source:
        """Read what `as_json` wrote; see `find_files` about the other arguments."""
        raw = value.get("path_bytes")
        text = value["path"] if raw is None else os.fsdecode(bytes.fromhex(raw))
        path: SourcePath = RemoteFile(text, retry_for) if is_address(text) else Path(text)
        return cls(
            name=value["name"],
            path=collection_at(text) if is_collection(value["name"]) else path,
            format=value["format"],
            fingerprint=Fingerprint(**value["fingerprint"]),
            total=value["total"],
            end=value.get("end"),
            spooled=value.get("spooled", False),
        )
