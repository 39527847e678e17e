"""A text -> the records of a collection that are nearest to it, by the collection's own model.

Nothing is written, and the lease is left to whoever wants to load, also while the query runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from upsert_cli import embedding
from upsert_cli.errors import BlankQuery, CollectionEmpty, QueryDimensionMismatch, TargetDamaged
from upsert_cli.store.base import QueryHit, Target
from upsert_cli.store.leasing import await_orphan
from upsert_cli.store.locations import Location, location_of
from upsert_cli.store.process import StoreProcess
from upsert_cli.verify.expected import Subject

if TYPE_CHECKING:
    from upsert_cli.store.base import Vectors

TRIES = 3  # while a load runs: it may be writing the index files just then
Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a collection."""

    text: str
    rows: int
    """How many records are wanted."""

    where: dict[str, Any] | None = None
    """A filter of Chroma's on the metadata, such as `{"year": {"$gte": 2024}}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """What came of a question."""

    target: Target
    question: Question
    records: int
    """In the collection."""

    hits: tuple[QueryHit, ...]
    """The nearest first."""

    def as_json(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return {
            "collection": self.target.collection,
            "chroma": self.target.path,
            "model": self.target.model,
            "records": self.records,
            "text": self.question.text,
            "where": self.question.where,
            "hits": [
                {"id": hit.id, "distance": hit.distance, "document": hit.text, "metadata": hit.metadata}
                for hit in self.hits
            ],
        }


def nearest(subject: Subject, question: Question, *, report: Report, warn: Report) -> Nearest:
    """Embeds a text and returns the records nearest to it.

    Args:
        subject: The collection.
        question: What is asked.
        report: Told what takes long.
        warn: Told what of the text does not count.

    Raises:
        ModelUnknown: Nothing says which model the collection's vectors are of.
        QueryDimensionMismatch: They are not of the model that it names.
        CollectionEmpty: There are none.
        BadFilter: Chroma does not understand the filter.
        TargetInUse: A load is at the files that would be read.
    """
    if not question.text.strip():
        raise BlankQuery
    embedded = cache(lambda: _embedded(subject, question.text, report=report, warn=warn))
    place = location_of(subject.target)
    for left in reversed(range(TRIES)):
        try:
            return _asked(subject.target, place, question, embedded, report=report)
        except TargetDamaged as error:
            if place.holder() is None:
                raise
            holder = await_orphan(place.holder)
            if holder is not None and not left:
                raise place.in_use(holder) from error
    return _asked(subject.target, place, question, embedded, report=report)  # whoever had the files is gone


def _asked(
    target: Target, place: Location, question: Question, embedded: Callable[[], Vectors], *, report: Report
) -> Nearest:
    # What would be flushed by merely reading must not be read beside somebody who writes.
    alone = place.upkeep is not None and place.upkeep.reading_flushes()
    reader = replace(target, beside_others=not alone, reads_only=True, examined=False)
    with StoreProcess.start(reader, told=report) as writer:
        vector = embedded()  # while the process opens the collection
        records = writer.opened().count
        if not records:
            raise CollectionEmpty(path=target.path, collection=target.collection)
        hits = writer.query(vector, rows=question.rows, where=question.where)
        writer.close()
    return Nearest(target=target, question=question, records=records, hits=tuple(hits))


def _embedded(subject: Subject, text: str, *, report: Report, warn: Report) -> Vectors:
    target, model = subject.target, subject.model(report=report)
    if target.dimension not in (0, model.dimension):
        raise QueryDimensionMismatch(
            path=target.path,
            collection=target.collection,
            had=target.dimension,
            gives=model.dimension,
            model=model.name,
        )
    max_tokens = target.max_tokens or model.max_tokens
    embedder = embedding.load(replace(model, max_tokens=max_tokens))
    [tokens] = embedder.count([text])
    if tokens > max_tokens:
        warn(f"the text has more than the {max_tokens} tokens that the model takes; the rest of it does not count")
    return embedder.embed_query(text)
