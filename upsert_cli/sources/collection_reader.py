"""A collection as a source, `chroma:TARGET#COLLECTION`, as far as this layer knows it; the store implements it."""

from __future__ import annotations

import abc
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from upsert_cli.errors import UsageFault

if TYPE_CHECKING:
    from upsert_cli.sources.item import Row
    from upsert_cli.sources.source import Fingerprint

SCHEME = "chroma:"
FORMAT = "chroma"  # in place of a file's format


class StoredParts(NamedTuple):
    """The parts of a stored record that are no fields of its item's payload."""

    document: str | None
    has_own_text: bool = False
    """The metadata has a key `text`; otherwise `payload.text` is the document alone."""

    vector: array[float] | None = None
    """Of 32-bit floats, to be kept; None: the document is to be embedded."""

    hash: str | None = None
    """The record's `upsert_hash`, which tells whether the vector is the model's; None if it has none."""

    fault: str | None = None
    """Why the record cannot be loaded, in one line."""


class CollectionReader(abc.ABC):
    """The records of a collection as rows whose values are items; `str` gives the address, spelled in one way."""

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


def is_collection(name: str) -> bool:
    """Tell whether a name is that of a collection and not a path or another address."""
    return name.startswith(SCHEME)


def no_collections(name: str) -> CollectionReader:
    """Raise the error for a collection where only files can be read."""
    raise UsageFault(message=f"{name} is a collection, and only files are read here")
