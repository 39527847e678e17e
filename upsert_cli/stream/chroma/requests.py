"""What the writer's process is asked to do, each as a message through the pipe, and what it says meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from upsert_cli.stream.chroma.rows import Member, Rows

if TYPE_CHECKING:
    from upsert_cli.stream.chroma.rows import Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """Asks what has to be done about some documents."""

    ids: list[str]
    hashes: list[str]
    keys: list[tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Asks to write some records."""

    upserts: Rows
    updates: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBack:
    """Asks what is wrong with a run of records."""

    start: int
    rows: int
    every: int
    identity: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Asks for documents and metadata, of some ids or of a run of records."""

    ids: list[str] | None
    start: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Asks for the records nearest to a vector."""

    vector: Vectors
    """Float32, `(1, dimension)`."""

    rows: int
    where: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """Asks for the records of a scope among a run of records."""

    scope: str
    start: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FindLeftovers:
    """Asks which records are of some items and no longer theirs."""

    parts: Mapping[str, int]
    average: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Asks to delete records that are still what they were."""

    members: list[Member]


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Asks to flush the index and end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Says, while a request is being carried out, what a user should hear; the answer is still to come."""

    message: str


Work: TypeAlias = Compare | Write | ReadBack | Fetch | Query | FindLeftovers | Members | Delete
Request: TypeAlias = Work | Close
