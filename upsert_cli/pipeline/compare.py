"""Batch -> Plan: what the collection already holds of a batch, and so what has to be embedded and written.

An item of which a record would take the place of another item's is rejected here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from upsert_cli.documents.document import Document
from upsert_cli.errors import Stage
from upsert_cli.pipeline.batches import Batch
from upsert_cli.sources.item import Reject
from upsert_cli.store.base import Comparison, RecordRef, Verdict

STEP = 0.1  # seconds; the longest that a waiting stage sleeps before it looks whether it should end


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A batch and what the collection already holds of it."""

    batch: Batch
    comparison: Comparison


class ComparableStore(Protocol):
    """What documents are compared with."""

    def compare(self, ids: list[str], hashes: list[str], keys: list[tuple[str, ...]]) -> Comparison:
        """Tells what has to be done about each document."""

    def find_stale_chunks(self, chunks: Mapping[str, int], *, average: bool) -> dict[str, list[RecordRef]]:
        """Tells which records some items have no longer."""


class InFlight:
    """The items of the batches between their comparison and their checkpoint."""

    def __init__(self) -> None:
        """Nothing is on its way yet."""
        self._items: dict[int, frozenset[str]] = {}
        self._changed = threading.Condition()

    def enter(self, batch: Batch, ending: threading.Event) -> bool:
        """Waits until no batch in flight has an item that begins here, then adds it; False if the stream ends."""
        beginning = frozenset(one.item.object_id for one in batch.documents if one.is_first_chunk)
        with self._changed:
            while not ending.is_set():
                if all(beginning.isdisjoint(other) for other in self._items.values()):
                    self._items[batch.number] = frozenset(one.item.object_id for one in batch.documents)
                    return True
                self._changed.wait(STEP)
        return False

    def leave(self, number: int) -> None:
        """Takes a batch out, once it is settled."""
        with self._changed:
            del self._items[number]
            self._changed.notify_all()


def compare_batches(
    batches: Iterator[Batch],
    collection: ComparableStore,
    *,
    in_flight: InFlight,
    force: bool,
    average: bool = False,
    ending: threading.Event,
) -> Iterator[Plan]:
    """Yields each batch with its comparison.

    Args:
        batches: In their order.
        collection: The one that they go into.
        in_flight: Whoever settles a batch takes it out there.
        force: Whether to embed and write also what has not changed.
        average: Whether items of parts are to have the mean of them.
        ending: Ends the waiting for a batch in flight.
    """
    taken: Reject | None = None  # of the item whose parts go on in the next batch
    for batch in batches:
        # An item that is still on its way to the collection would be compared with what it is about to replace.
        if not in_flight.enter(batch, ending):
            return
        if taken is not None:
            late = () if batch.goes_on else batch.rejects or (taken,)
            batch = replace(batch, documents=(), rejects=late)  # noqa: PLW2901  # nothing of it is to be written
        comparison = compared(batch.documents, collection)
        plan = Plan(batch=batch, comparison=forced(comparison) if force else comparison)
        rejects = _of_taken(plan)
        if rejects:
            plan = _without(plan, rejects)
        taken = next(iter(rejects.values()), taken) if batch.goes_on else None
        stale = collection.find_stale_chunks(present_chunks(plan.batch.documents), average=average)
        yield replace(plan, comparison=replace(plan.comparison, stale_chunks=stale)) if stale else plan


def compared(documents: Sequence[Document], collection: ComparableStore) -> Comparison:
    """Compares documents with a collection."""
    return collection.compare(
        [document.id for document in documents],
        [document.upsert_hash for document in documents],
        [tuple(document.metadata) for document in documents],
    )


def present_chunks(documents: Iterable[Document]) -> dict[str, int]:
    """Returns how many parts each item has whose last one is among these; 0 for one that is a single record."""
    ended = (one for one in documents if one.is_last_chunk)
    return {one.item.object_id: 0 if one.chunk is None else one.chunk.number + 1 for one in ended}


def _of_taken(plan: Plan) -> dict[str, Reject]:
    """Returns a reject, by item, for each one of whose records the id is another's."""
    rejects: dict[str, Reject] = {}
    for document, verdict in zip(plan.batch.documents, plan.comparison.verdicts, strict=True):
        if verdict is Verdict.TAKEN:
            whose = "a part of another item" if document.chunk is None else "another item, which is not split"
            detail = f"the record {document.id} in the collection is {whose}; load one of them under another id"
            stage = Stage.UPSERT if document.chunk is None else Stage.SPLITTING
            rejects.setdefault(document.item.object_id, Reject.of(document.item, stage=stage, detail=detail))
    return rejects


def _without(plan: Plan, rejects: Mapping[str, Reject]) -> Plan:
    """Returns a plan without the items that are rejected; the reject of a row waits until all of it is behind."""
    batch, comparison = plan.batch, plan.comparison
    kept = [row for row, document in enumerate(batch.documents) if document.item.object_id not in rejects]
    settled = () if batch.goes_on else tuple(rejects.values())
    return Plan(
        batch=replace(
            batch,
            documents=tuple(batch.documents[row] for row in kept),
            rejects=(*batch.rejects, *settled),
        ),
        comparison=Comparison(
            verdicts=[comparison.verdicts[row] for row in kept],
            stale_keys=[comparison.stale_keys[row] for row in kept],
        ),
    )


def forced(comparison: Comparison) -> Comparison:
    """Returns a comparison by which everything is written again."""
    kept = (Verdict.NEW, Verdict.TAKEN)
    verdicts = [verdict if verdict in kept else Verdict.TEXT for verdict in comparison.verdicts]
    return replace(comparison, verdicts=verdicts)
