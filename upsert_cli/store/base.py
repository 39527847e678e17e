"""What is said about records between the stages and the writer's process."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from upsert_cli.retry import RETRY_FOR

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The collection to load into, and the model to load it with."""

    path: str
    """The folder of a local Chroma, absolute, or the address of a server, as `address.place_named` spells them."""

    collection: str
    model: str
    dimension: int
    max_tokens: int
    tool_version: str

    default_model: bool
    """Whether the model is the one of Chroma's own default embedding function."""

    as_found: bool = False
    """Whether the collection has to be there and is taken as it is: for a full look instead of the usual glance."""

    beside_others: bool = False
    """Whether it is only read, while a load may be writing to it: no lease is taken, and nothing is changed.

    On a server also for the further writers of a load, of which the first has the lease.
    """

    reads_only: bool = False
    """Whether nothing is written: the settings stay as they are, and a read-only folder is good enough."""

    examined: bool = False
    """Whether every record is read with its vector, so that an index that lacks some is no obstacle."""

    leases: str = ""
    """The folder with what keeps two of our loads out of one collection on a server; the journal's."""

    retry_for: float = RETRY_FOR
    """Seconds for which a request that a server fails on is made again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """A place that nobody else writes to now; the collection is about to be opened."""

    empty: bool
    """Whether the collection holds nothing yet, as far as can be told before that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A collection that is ready to be written."""

    created: bool
    count: int
    """Records in it."""

    max_batch: int
    """Rows a call."""

    warnings: tuple[str, ...]

    unclean: bool
    """Whether the last one who wrote here did not end in order; the index was looked through then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What is wrong with a run of records, each id with one line of reason."""

    rows: int
    """Records that were looked at."""

    unreadable: dict[str, str]
    """Their vector or document is missing or no good."""

    different: dict[str, str]
    """They do not hold what their hash says."""

    unreachable: dict[str, str]
    """A query by their own vector does not find it."""

    asked: int
    """Records that were looked for by a query."""


class Stored(NamedTuple):
    """A record as it is stored, but for its vector."""

    id: str
    text: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionInfo:
    """A collection among those of its place."""

    name: str
    records: int
    dimension: int | None
    """Of its vectors; None while it is empty."""

    metadata: dict[str, Any]
    function: str
    """The name of its embedding function, or ""."""


class RecordRef(NamedTuple):
    """A record that may be deleted: of a scope, or of an item that has it no longer."""

    id: str
    hash: str
    """Its `upsert_hash`, which changes with anything of the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRefPage:
    """The records of a scope among a run of records."""

    rows: int
    """Records that were looked at."""

    members: list[RecordRef]


class QueryHit(NamedTuple):
    """A record that a query found."""

    id: str
    distance: float
    text: str | None
    metadata: dict[str, Any]


class Verdict(enum.IntEnum):
    """What a document is to the collection."""

    NEW = 0

    TEXT = 1
    """Its text changed, or cannot be told: embed and upsert."""

    METADATA = 2
    """Only its metadata changed: update."""

    UNCHANGED = 3

    TAKEN = 4
    """Its id is the one of another item's part, or, for a part, of an item as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the collection holds of some documents, in their order."""

    verdicts: list[Verdict]

    stale_keys: list[tuple[str, ...]]
    """Per document, the metadata keys that its record has and the document has not."""

    leftovers: Mapping[str, Sequence[RecordRef]] = field(default_factory=dict)
    """By item, the records that are of it and that it has no longer: parts, or a whole that is split now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteBatch:
    """Records to write."""

    ids: list[str]

    texts: list[str]
    """Not looked at where only metadata is updated."""

    metadatas: list[dict[str, Any]]
    """A value of None takes the key away."""

    vectors: Vectors | None
    """Float32, `(len(ids), dimension)`; None updates the metadata alone."""

    def size_of(self, places: Sequence[int]) -> int:
        """Returns the characters of all strings in some of the rows."""
        texts = sum(len(self.texts[place]) for place in places) if self.vectors is not None else 0
        values = (value for place in places for value in self.metadatas[place].values())
        return texts + sum(len(value) for value in values if isinstance(value, str))

    def take(self, places: Sequence[int]) -> WriteBatch:
        """Returns some of the rows."""
        return WriteBatch(
            ids=[self.ids[place] for place in places],
            texts=[self.texts[place] for place in places] if self.vectors is not None else [],
            metadatas=[self.metadatas[place] for place in places],
            vectors=self.vectors[list(places)] if self.vectors is not None else None,
        )
