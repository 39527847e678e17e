"""Batches -> compared batches: which records the collection already holds, and so which documents to embed and write.

An item whose record would overwrite a record of another item is rejected here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from upsert_cli.documents.document import Document
from upsert_cli.errors import Stage
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.prefetch import STEP_SECONDS, StageStopped
from upsert_cli.sources.item import Reject
from upsert_cli.store.base import Comparison, Verdict
from upsert_cli.store.process import StoreProcess


class InFlight:
    """The items of the batches between their comparison and their commit."""

    def __init__(self, stopping: threading.Event) -> None:
        """Let `stopping` end the wait for a batch in flight."""
        self._stopping = stopping
        self._items: dict[int, set[str]] = {}
        self._changed = threading.Condition()

    def enter(self, batch: Batch) -> None:
        """Wait until no other batch in flight has an item that begins in this batch, and add it.

        A fallback has the number of its batch, and does not wait for it.

        Raises:
            StageStopped: The stages were stopped during the wait.
        """
        items = {one.item.object_id for one in batch.documents}
        # The same as `is_first_chunk`, without a call for every row.
        beginning = {one.item.object_id for one in batch.documents if not one.number}
        with self._changed:
            while not self._stopping.is_set():
                others = (held for number, held in self._items.items() if number != batch.number)
                if all(map(beginning.isdisjoint, others)):
                    self._items[batch.number] = items | self._items.get(batch.number, set())
                    return
                self._changed.wait(STEP_SECONDS)
        raise StageStopped

    def leave(self, number: int) -> None:
        """Remove a batch once it is committed."""
        with self._changed:
            del self._items[number]
            self._changed.notify_all()


def compare(
    batches: Iterator[Batch],
    store: StoreProcess,
    *,
    in_flight: InFlight | None = None,
    force: bool = False,
    average: bool = False,
) -> Iterator[Batch]:
    """Yield each batch with its comparison.

    Args:
        batches: In the order of their rows.
        store: The collection.
        in_flight: Each batch enters it here, and leaves it once it is committed. None if nothing is written.
        force: Whether to embed and write unchanged documents too.
        average: Whether split items have a record with the average of their chunks.
    """
    taken: dict[str, Reject] = {}
    for batch in batches:
        if in_flight is not None:
            # Else a repeated item would be compared with a record that its earlier row is about to replace.
            in_flight.enter(batch)
        comparison = compare_documents(batch.documents, store, force=force)
        taken = _rejects_of_taken(batch.documents, comparison.verdicts) | taken
        kept = batch.documents
        if taken:
            kept = tuple(document for document in kept if document.item.object_id not in taken)
        stale = store.find_stale_chunks(present_chunks(kept), average=average)
        yield replace(batch, comparison=replace(comparison, stale_chunks=stale), failed=taken)
        taken = taken if batch.goes_on else {}


def compare_only(batches: Iterator[Batch], store: StoreProcess | None, *, average: bool) -> Iterator[Batch]:
    """Yield batches and fallbacks with their comparison for a dry run; without a store, every item is new."""
    if store is None:
        for batch in batches:
            yield replace(batch, comparison=Comparison(verdicts=[Verdict.NEW] * len(batch.documents)))
        return
    for compared in compare(batches, store, average=average):
        yield compared
        if (fallback := compared.fallback()) is not None:
            yield from compare_only(iter([fallback]), store, average=average)


def compare_documents(documents: Sequence[Document], store: StoreProcess, *, force: bool = False) -> Comparison:
    """Compare documents with a collection; with `force`, all of them count as changed."""
    ids = [document.id for document in documents]
    comparison = store.compare(ids, [document.upsert_hash for document in documents], with_keys=force)
    if not force:
        return comparison
    kept = (Verdict.NEW, Verdict.TAKEN)
    verdicts = [verdict if verdict in kept else Verdict.TEXT for verdict in comparison.verdicts]
    return replace(comparison, verdicts=verdicts)


def present_chunks(documents: Iterable[Document]) -> dict[str, int]:
    """Return the number of chunks of each item whose last one is among `documents`; 0 for an unsplit item."""
    return {one.item.object_id: 0 if one.number is None else one.number + 1 for one in documents if one.is_last_chunk}


def _rejects_of_taken(documents: Sequence[Document], verdicts: Sequence[Verdict]) -> dict[str, Reject]:
    """Return, by item id, a reject for each item with a record whose id belongs to another item."""
    rejects: dict[str, Reject] = {}
    if Verdict.TAKEN not in verdicts:
        return rejects
    for document, verdict in zip(documents, verdicts, strict=True):
        if verdict is Verdict.TAKEN:
            owner = "a chunk of another item" if document.number is None else "another item, which is not split"
            detail = f"the record {document.id} in the collection is {owner}; load one of them under another id"
            stage = Stage.UPSERT if document.number is None else Stage.SPLITTING
            rejects.setdefault(document.item.object_id, Reject.of(document.item, stage=stage, detail=detail))
    return rejects
