"""Repairs a collection: writes missing, unreadable and different records again, and rebuilds an unreadable index.

Records come from a task's sources where these have them, otherwise from the documents and metadata in the store.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial

from upsert_cli.context import RunContext
from upsert_cli.documents.document import Document
from upsert_cli.documents.hashing import HASH_KEY, exact, has_own_vector, stored_fault, stored_hash
from upsert_cli.embedding.embedder import load_model
from upsert_cli.embedding.identity import Model, OwnVectors
from upsert_cli.errors import ItemError, Refusal, TargetDamaged, VectorsMissing
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.batches import MAX_ROWS
from upsert_cli.pipeline.compare import compare_documents
from upsert_cli.pipeline.embed import embed
from upsert_cli.sources.item import START, Item
from upsert_cli.store.base import Comparison, Record, RecordRef, Verdict
from upsert_cli.store.location import location_of
from upsert_cli.store.process import StoreProcess
from upsert_cli.verify.expected import Subject
from upsert_cli.verify.verification import Findings, Repaired, Verification, examine, opened


def repair(subject: Subject, *, context: RunContext) -> Verification:
    """Repair a collection, and return the work done and the findings after it.

    Args:
        subject: The collection.
        context: Reports each step that may take long.

    Raises:
        Refusal: Nothing says which model the vectors come from, or they came with items and no task with their sources
            is named; only the queue was repaired. Or the weights in the given folder are others, and nothing was.
        TargetDamaged: The collection still cannot be read.
    """
    subject.check_given_model()
    removed: list[str] = []
    aside: list[str] = []
    written = 0
    location = location_of(subject.target)
    look_again = partial(examine, subject, context=context, most_unreadable=math.inf)
    found, damage = _look(subject, context)
    before, detail = found, None if damage is None else damage.detail
    if damage is not None and (removed := location.take_poison()):
        context.info(f"removed {len(removed)} rows that blocked the collection's queue")
        found, damage = _look(subject, context)
    if found is None or found.index_is_lost:
        repairer = _Repairer(subject, context)
        if repairer.embeds:
            repairer.embedder()  # before anything is moved: without the model nothing could be rebuilt
        if repairer.embeds or (found.queries_fail if found is not None else not isinstance(damage, VectorsMissing)):
            aside = location.put_index_aside()  # a server indexes records that are written again by itself
        context.info(f"rebuilding the index from the {'stored documents' if repairer.embeds else 'sources'}")
        written += repairer.write_all()
        found = look_again()
    if found.unreachable and found.asked < found.records:
        # An index that has dropped one of a sample has dropped others. With chromadb 1.5.9 that was one in 700 of the
        # records that were replaced where all vectors were close to each other, and none of 4,000 with the default
        # model. Writing a dropped record again brought it back each time.
        context.info("looking for every record by its own vector")
        found = look_again(ask_all=True)
    if found.wrong:
        context.info(f"writing {len(found.wrong - found.stale.keys())} records again")
        written += _Repairer(subject, context).write_again(found)
        found = look_again()
    repaired = Repaired(damage=detail, before=before, removed=tuple(removed), aside=tuple(aside), written=written)
    return Verification(subject=subject, found=found, repaired=repaired)


def _look(subject: Subject, context: RunContext) -> tuple[Findings | None, TargetDamaged | None]:
    """Return the findings, or the damage that makes the collection unreadable."""
    try:
        return examine(subject, context=context), None
    except TargetDamaged as error:
        context.info(str(error))
        return None, error


class _Repairer:
    """Embeds records and writes them again."""

    def __init__(self, subject: Subject, context: RunContext) -> None:
        self._subject = subject
        self._context = context
        self._model = subject.vectors()
        if isinstance(self._model, OwnVectors) and subject.rows is None:
            target = subject.target
            raise Refusal(
                message=f"the vectors of the collection {target.collection} in {target.path} came with its items, and "
                f"only their sources have them: `upsert-cli verify --repair {subject.loaded_by or 'TASK_ID'}` reads "
                f"those of a task again, and `upsert-cli list` shows the tasks"
            )
        self.embedder = cache(lambda: load_model(self._model))

    @property
    def embeds(self) -> bool:
        """Whether a model can make the vectors again; otherwise they are only in the sources and in the index."""
        return isinstance(self._model, Model)

    def write_all(self) -> int:
        """Write every record again, from the sources if it brought its vector, otherwise from its stored document.

        Returns:
            The number of written records.
        """
        with opened(self._subject, context=self._context) as store:
            own = sum(1 for _ in self._write(self._own_from_sources(store), store))
            blocks = (store.fetch(start=start, rows=MAX_ROWS) for start in itertools.count(0, MAX_ROWS))
            stored = itertools.takewhile(len, blocks)
            return own + sum(1 for _ in self._write(self._from_store(stored), store))

    def write_again(self, found: Findings) -> int:
        """Write wrong records again, and return their number; delete stale ones."""
        stale = found.stale.keys()
        wrong = found.wrong - stale
        with opened(self._subject, context=self._context) as store:
            done = set(self._write(self._from_sources(wrong, store, outdated=found.outdated), store))
            for ids in _blocks(stale):
                records = store.fetch(ids)
                store.delete([RecordRef(one.id, str(one.metadata.get(HASH_KEY))) for one in records])
            rest = (store.fetch(ids) for ids in _blocks(wrong - done))
            return len(done) + sum(1 for _ in self._write(self._from_store(rest), store))

    def _write(self, batches: Iterator[Batch], store: StoreProcess) -> Iterator[str]:
        """Yield the ids of the written records; each batch is written before the next one is compared."""
        embedded_batches = embed(
            batches, load=self.embedder, effort=self._subject.options.effort, stopping=threading.Event()
        )
        for embedded in embedded_batches:
            self._context.check()
            for rows in (embedded.upserts(), embedded.updates()):
                if rows.ids:
                    refused = {one for one, _ in store.write(rows)}
                    yield from (one for one in rows.ids if one not in refused)

    def _own_from_sources(self, store: StoreProcess) -> Iterator[Batch]:
        for batch in self._subject.batches():
            documents = tuple(one for one in batch.documents if one.vector is not None)
            if documents:
                comparison = compare_documents(documents, store, force=True)
                yield replace(batch, documents=documents, comparison=comparison)

    def _from_sources(self, wrong: Set[str], store: StoreProcess, *, outdated: Set[str]) -> Iterator[Batch]:
        for batch in self._subject.batches():
            items = {one.item.object_id for one in batch.documents if one.id in wrong}
            # All chunks of an item, since their average may be wrong.
            documents = tuple(one for one in batch.documents if one.item.object_id in items)
            if documents:
                comparison = compare_documents(documents, store, force=True)
                verdicts = [
                    _verdict_on(document.id, verdict, wrong=wrong, outdated=outdated)
                    for document, verdict in zip(documents, comparison.verdicts, strict=True)
                ]
                yield replace(batch, documents=documents, comparison=replace(comparison, verdicts=verdicts))

    def _from_store(self, blocks: Iterable[Sequence[Record]]) -> Iterator[Batch]:
        for number, block in enumerate(blocks):
            # A vector that came with its item is only in the sources; no model can make it again.
            again = (one for one in block if one.text and not has_own_vector(one.metadata.get(HASH_KEY)))
            documents = tuple(self._document(one.id, one.text or "", one) for one in again if self.embeds)
            comparison = Comparison(verdicts=[Verdict.TEXT] * len(documents))
            yield Batch(number=number, documents=documents, read=len(block), after=START, comparison=comparison)

    def _document(self, identifier: str, text: str, stored: Record) -> Document:
        """Return a stored record to write again, with the hash of its present content."""
        metadata = stored.metadata
        ours = self._subject.identity is not None or not metadata  # Chroma takes no record without any metadata
        if ours and stored_fault(text, metadata, self._model.hashed) is None:
            metadata = exact(metadata)  # the returned floats would be rounded once more
        elif ours:
            with suppress(ItemError):  # too large for our hash: another program stored it, and it stays unchanged
                metadata = metadata | {HASH_KEY: stored_hash(text, metadata, self._model.hashed)}
        item = Item(identifier, None, None, self._subject.target.collection, 0)
        return Document(identifier, text, metadata, str(metadata.get(HASH_KEY, "")), item, {})


def _verdict_on(identifier: str, verdict: Verdict, *, wrong: Set[str], outdated: Set[str]) -> Verdict:
    """Return how to write a record: as it has to be written anew, by its metadata alone, or not at all."""
    if identifier in outdated:
        return Verdict.METADATA
    return verdict if identifier in wrong else Verdict.UNCHANGED


def _blocks(ids: Set[str]) -> Iterator[list[str]]:
    """Yield ids in order, as many as are fetched at once."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), MAX_ROWS):
        yield ordered[start : start + MAX_ROWS]
