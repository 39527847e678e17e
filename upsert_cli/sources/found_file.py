"""Files and collections that the user named, before a task reads them."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TypeAlias

from upsert_cli.errors import UsageFault
from upsert_cli.sources.fingerprint import Fingerprint
from upsert_cli.sources.readers import RowReader, reader_of
from upsert_cli.sources.remote import FilePath


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
