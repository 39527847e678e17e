"""A file or collection: as the user named it, and as a task reads it, with a fingerprint that shows a change.

Standard input and pipes, which can be read only once, are first spooled into a file, so that a restart can read them.
"""

from __future__ import annotations

import abc
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from upsert_cli.errors import UpsertCliError, UsageFault, reason_of
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.fingerprint import UNKNOWN_SIZE, Fingerprint
from upsert_cli.sources.folders import valid_unicode
from upsert_cli.sources.formats import Unsuitable, is_collection
from upsert_cli.sources.item import Row
from upsert_cli.sources.readers import RowReader, reader_of
from upsert_cli.sources.remote import FilePath, RemoteFile, file_at
from upsert_cli.sources.source_faults import not_found, not_loadable, source_changed, source_gone


class CollectionReader(RowReader):
    """The records of a collection as rows whose values are items; implemented by the store.

    `str` returns the address, which is the same for each spelling of it.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """A file or collection that the user named, not yet opened."""

    name: str
    """The name that the user would give it, in valid Unicode: `data/a.jsonl`, or `-` for standard input."""

    path: SourcePath
    """The file to open, absolute; or the collection."""

    format: str
    """A key of `formats.SUFFIXES`, or `formats.COLLECTION_FORMAT`."""

    spooled: bool = False
    """A stream, of which a copy is read, since a restart has to read it again."""

    @property
    def reader(self) -> RowReader:
        """Return the reader of its rows."""
        return self.path if isinstance(self.path, CollectionReader) else reader_of(self.path, self.format)

    def current_fingerprint(self) -> Fingerprint:
        """Return the present fingerprint of the file or collection.

        Raises:
            OSError: The file cannot be read, or is not a regular file.
        """
        if isinstance(self.path, CollectionReader):
            return self.path.fingerprint()
        return Fingerprint.of_file(self.path, whole=self.spooled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(FoundFile):
    """A file or collection that a task reads, with its fingerprint from when the task was created."""

    fingerprint: Fingerprint

    total: int | None
    """Rows to read; None if they cannot be counted cheaply."""

    end: int | None = None
    """The number of the last row to read; None for all rows of the file."""

    @classmethod
    def of(cls, found: FoundFile, *, limit: int | None = None) -> Source:
        """Return the source for a file, with its fingerprint and its number of rows, up to a limit.

        Raises:
            UsageFault: There is nothing at the address, or the file has to be loaded in another way.
            SourceUnreadable: The file cannot be read, is damaged, or is a pipe that was not spooled.
        """
        try:
            source = cls(
                name=found.name,
                path=found.path,
                format=found.format,
                fingerprint=found.current_fingerprint(),
                total=found.reader.count() if limit is None else None,
                spooled=found.spooled,
            )
        except OSError as error:
            raise _fault(found, error) from error
        return source if limit is None else source.first(limit)

    def first(self, limit: int) -> Source:
        """Return the source with its first `limit` rows.

        Raises:
            UsageFault: The file has to be loaded in another way.
            SourceUnreadable: The first row cannot be read, or the file is in a form that cannot be read here.
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
            OSError: The file cannot be opened, or cannot be read any further.
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
        """Return in one phrase how the file differs from its fingerprint, or None."""
        try:
            return self.current_fingerprint().changed_from(self.fingerprint)
        except OSError as error:
            return reason_of(error)

    def was_rewritten(self) -> bool:
        """Check whether bytes of the file have changed or are gone since its fingerprint was taken.

        Bytes that were appended do not count. For a remote file or a collection, only a smaller size counts.
        """
        try:
            if isinstance(self.path, Path):
                return not self.fingerprint.is_beginning_of(self.path)
            return UNKNOWN_SIZE < self.current_fingerprint().size < self.fingerprint.size
        except OSError:
            return True

    def check_unchanged(self, *, task_id: str) -> None:
        """Check that the positions of a task's checkpoint are still valid.

        Raises:
            Refusal: The file has changed, or is gone.
        """
        try:
            change = self.current_fingerprint().changed_from(self.fingerprint)
        except OSError as error:
            raise source_gone(self.name, reason_of(error)) from error
        if change is not None:
            raise source_changed(self.name, change, task_id=task_id)

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
        """Return the source that `as_json` wrote; see `find_files` about the other arguments."""
        raw = value.get("path_bytes")
        path = value["path"] if raw is None else os.fsdecode(bytes.fromhex(raw))
        return cls(
            name=value["name"],
            path=collection_at(path) if is_collection(value["name"]) else file_at(path, retry_for=retry_for),
            format=value["format"],
            fingerprint=Fingerprint(**value["fingerprint"]),
            total=value["total"],
            end=value.get("end"),
            spooled=value.get("spooled", False),
        )


def _fault(found: FoundFile, error: OSError) -> UpsertCliError:
    """Return the error for a file or a collection that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        if isinstance(found.path, RemoteFile):
            return not_found(found.name)
        if isinstance(found.path, CollectionReader):
            return UsageFault(message=f"{found.name}: {error}")
    return not_loadable(found.name, found.format, error)
