"""The collection to open, and the description that it gives of itself."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from upsert_cli import __version__
from upsert_cli.embedding.identity import CHROMAS_DEFAULT, ModelIdentity
from upsert_cli.retry import RETRY_FOR

COSINE = "cosine"  # the distance of the collections that we create
DIGEST_BYTES = 16  # of a collection's state; a collision is practically impossible
UNNAMED = ModelIdentity(name="", dimension=0, max_tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The collection to open, and the model whose vectors it holds."""

    path: str
    """The absolute path of a local folder, or the address of a server, as `canonical_target` spells it."""

    collection: str

    model: ModelIdentity = UNNAMED
    """`UNNAMED` if the model of the vectors is not known."""

    tool_version: str = __version__

    as_found: bool = False
    """Whether the collection has to exist; its index files are checked in full, in place of a glance at its vectors."""

    beside_others: bool = False
    """Whether others may write at the same time, so that no lease is taken: for a reader, or a server's next writer."""

    reads_only: bool = False
    """Whether nothing is written, not even settings; a read-only folder will do."""

    examined: bool = False
    """Whether every record will be read with its vector, so the index may lack some."""

    keeps_lists: bool = False
    """Whether metadata may have lists, which not every server stores."""

    as_a_whole: bool = False
    """Whether the collection is only renamed or deleted, so it may be damaged."""

    space: str | None = None
    """The distance of the collection whose vectors are copied: `cosine`, `l2` or `ip`; None if none are copied."""

    function: str | None = None
    """The model of copied vectors, if only the embedding function of their collection names it."""

    rows: int | None = None
    """The most rows that will be written, if that is known."""

    leases: str = ""
    """The folder in the journal for the leases on collections of servers."""

    retry_for: float = RETRY_FOR
    """How long to keep retrying failed server requests, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A collection that is open."""

    created: bool
    count: int
    """The number of its records."""

    warnings: tuple[str, ...]

    names_model: bool = True
    """Whether it names the model of its vectors, so that a query needs no --model."""

    upgrade: str | None = None
    """The warning that Chroma upgraded a folder of an older version, or that a load would; None for other folders."""

    unclean: bool
    """Whether the last writer died or failed, so the index was checked closely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """The description that a collection gives of itself."""

    name: str
    dimension: int | None
    """The length of its vectors; None until it has had a record."""

    stamp: ModelIdentity | None
    """The model in the stamp that this tool leaves; None without a stamp."""

    default_function: bool
    """Whether its embedding function is Chroma's default, which our default model equals."""

    function: str | None
    """The model of its embedding function, or the function's name; None without a function."""

    space: str
    """The distance: `cosine`, `l2` or `ip`."""

    @property
    def model(self) -> ModelIdentity | None:
        """The model that our stamp or Chroma's default function names, or None."""
        if self.stamp is not None:
            return self.stamp
        # Chroma's client stores its default function where no other is named, also with vectors that are not its own.
        is_used = self.dimension in (None, CHROMAS_DEFAULT.dimension)
        return CHROMAS_DEFAULT if self.default_function and is_used else None

    @property
    def named_model(self) -> str | None:
        """The name of that model, or None."""
        return None if self.model is None else self.model.name


class CollectionState(NamedTuple):
    """The state of a collection, which differs after any change."""

    id: str
    """Differs between two collections of the same name."""

    changes: int
    """A number that grows with each change; 0 where it is not known."""

    records: int

    @property
    def digest(self) -> str:
        """A digest of the id and the changes."""
        return hashlib.blake2b(f"{self.id} {self.changes}".encode(), digest_size=DIGEST_BYTES).hexdigest()
