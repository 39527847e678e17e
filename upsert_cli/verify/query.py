"""A text -> the records of a collection that are nearest to it, by the collection's own model.

Nothing is written, and no lease is taken, so a load can begin while the query runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from upsert_cli import embedding
from upsert_cli.context import RunContext
from upsert_cli.errors import Refusal, TargetDamaged, UpsertCliError, UsageFault
from upsert_cli.store.base import QueryHit, Target
from upsert_cli.store.locations import Location, location_of
from upsert_cli.store.process import StoreProcess
from upsert_cli.verify.expected import Subject

if TYPE_CHECKING:
    from upsert_cli.store.base import Vectors

TRIES = 3  # while a load runs, which may be writing the index files at that moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The records of a collection that are nearest to a text."""

    target: Target
    text: str
    where: dict[str, Any] | None
    records: int
    """In the collection."""

    hits: tuple[QueryHit, ...]
    """The nearest first."""

    def as_json(self) -> dict[str, Any]:
        """Return the answer as plain data."""
        return {
            "collection": self.target.collection,
            "chroma": self.target.path,
            "model": self.target.model.name,
            "records": self.records,
            "text": self.text,
            "where": self.where,
            "hits": [
                {"id": hit.id, "distance": hit.distance, "document": hit.text, "metadata": hit.metadata}
                for hit in self.hits
            ],
        }


def nearest(subject: Subject, text: str, *, rows: int, where: dict[str, Any] | None, context: RunContext) -> Nearest:
    """Embed a text and return the records nearest to it.

    Args:
        subject: The collection.
        text: The text to query for.
        rows: Number of records wanted.
        where: Chroma's filter on the metadata, such as `{"year": {"$gte": 2024}}`.
        context: Checked in the waits.

    Raises:
        UsageFault: The text is blank, or Chroma does not understand the filter.
        Refusal: The collection names no model, or its vectors do not come from the model that it names.
        UpsertCliError: The collection is empty.
        TargetInUse: A load is writing the files that would be read.
    """
    if not text.strip():
        raise UsageFault(message="the text to query for is blank; give some words, in quotes")
    vector = cache(lambda: _embed(subject, text, context))
    target = subject.target
    location = location_of(target)

    def ask() -> Nearest:
        with _opened(target, location, context) as store:
            asked = vector()  # while the process opens the collection
            if not (records := store.opened().count):
                raise UpsertCliError(
                    message=f"the collection {target.collection} in {target.path} holds no record; `upsert-cli run` "
                    f"loads into it"
                )
            hits = store.query(asked, rows=rows, where=where)
        return Nearest(target=target, text=text, where=where, records=records, hits=tuple(hits))

    for left in reversed(range(TRIES)):
        try:
            return ask()
        except TargetDamaged as error:
            if location.holder() is None:
                raise
            holder = location.await_orphan(context.check)
            if holder is not None and not left:
                raise location.in_use(holder) from error
    return ask()  # the process that had the files is gone


def _opened(target: Target, location: Location, context: RunContext) -> StoreProcess:
    # If merely reading would flush the index, no other process may write at the same time.
    reader = replace(target, beside_others=not location.reading_flushes(), reads_only=True, examined=False)
    return StoreProcess(reader, context=context)


def _embed(subject: Subject, text: str, context: RunContext) -> Vectors:
    target = subject.target
    if not target.model.name:
        raise Refusal(
            message=f"the collection {target.collection} in {target.path} does not say which model made its vectors; "
            f"name it by --model NAME"
        )
    model = subject.model(context=context)
    if target.model.dimension not in (0, model.dimension):
        raise Refusal(
            message=f"the collection {target.collection} in {target.path} holds vectors of {target.model.dimension} "
            f"numbers, and {model.name} gives {model.dimension}; query it by the program that filled it, or name "
            f"another --collection"
        )
    max_tokens = target.model.max_tokens or model.max_tokens
    embedder = embedding.load(replace(model, max_tokens=max_tokens))
    tokens = embedder.count_query(text)
    if tokens > max_tokens:
        context.warning(
            f"the text has more than the {max_tokens} tokens that the model takes; the rest of it does not count"
        )
    return embedder.embed_query(text)
