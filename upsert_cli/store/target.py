"""The collection to open, and the description that it gives of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from upsert_cli import __version__
from upsert_cli.embedding.identity import CHROMAS_DEFAULT, ModelIdentity
from upsert_cli.retry import RETRY_FOR

UNNAMED = ModelIdentity(name="", dimension=0, max_tokens=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The collection to open, and the model whose vectors it holds."""

    path: str
    """The absolute path of a local folder, or the address of a server, as `canonical_target` spells it."""

    collection: str

    model: ModelIdentity = UNNAMED
    """Without a name if nothing says which model made the vectors."""

    tool_version: str = __version__

    as_found: bool = False
    """Whether the collection has to exist and is taken unchanged: for a full check instead of the usual glance."""

    beside_others: bool = False
    """Whether it is read while a load may be writing to it, or is a further writer to a server: no lease is taken."""

    reads_only: bool = False
    """Whether nothing is written: the settings stay as they are, and a read-only folder is good enough."""

    examined: bool = False
    """Whether every record will be read with its vector, so that an index that lacks some is no obstacle."""

    keeps_lists: bool = False
    """Whether metadata may have lists, which not every server stores."""

    as_a_whole: bool = False
    """Whether it is opened only to be renamed or deleted, so that it may be damaged."""

    space: str | None = None
    """The distance of a collection whose vectors are kept: `cosine`, `l2` or `ip`; None: that of our own, cosine."""

    function: str | None = None
    """The model of vectors that are kept, where only the embedding function of their collection names one."""

    rows: int | None = None
    """Rows that will be written at most, where that is known."""

    leases: str = ""
    """The folder, in the journal, for the leases on collections of servers."""

    retry_for: float = RETRY_FOR
    """How long to keep retrying failed server requests, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A collection that is open."""

    created: bool
    count: int
    """Records in it."""

    warnings: tuple[str, ...]

    names_model: bool = True
    """Whether it names the model that made its vectors, by which it answers queries."""

    upgrade: str | None = None
    """The warning that a folder of an older version is upgraded, or would be by a load; None if it is not."""

    unclean: bool
    """Whether the last writer did not end in order, so that the index was checked more closely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """The description that a collection gives of itself."""

    name: str
    dimension: int | None
    """Of its vectors; None while it is empty."""

    stamp: ModelIdentity | None
    """The model in the stamp that this tool leaves; None without a stamp."""

    default_function: bool
    """Whether its embedding function is the one that our default model equals."""

    function: str | None
    """The model of its embedding function, or the function's name; None without a function."""

    space: str
    """How distances are measured: `cosine`, `l2` or `ip`."""

    @property
    def named_model(self) -> str | None:
        """Return the model that it names, by our stamp or by Chroma's default function; None if it names none."""
        if self.stamp is not None:
            return self.stamp.name
        # Chroma's client stores its default function where no other is named, also with vectors that are not its own.
        is_used = self.dimension in (None, CHROMAS_DEFAULT.dimension)
        return CHROMAS_DEFAULT.name if self.default_function and is_used else None


class CollectionState(NamedTuple):
    """The state of a collection, by which a later change shows."""

    id: str
    """Another collection of the same name has another one."""

    changes: int
    """Grows with each change; 0 where the store does not tell."""

    records: int
