"""Repairs a collection: writes missing, unreadable and different records again, and rebuilds an unreadable index.

Records come from a task's sources where these have them, otherwise from the documents and metadata in the store.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from functools import cache, partial

from upsert_cli.context import RunContext
from upsert_cli.documents.hashing import HASH_KEY, has_own_vector
from upsert_cli.documents.stored_items import document_of_record
from upsert_cli.embedding.embedder import load_model
from upsert_cli.embedding.identity import Model, OwnVectors
from upsert_cli.errors import Refusal, TargetDamaged, VectorsMissing
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.batches import MAX_ROWS
from upsert_cli.pipeline.compare import compare_documents
from upsert_cli.pipeline.embed import embed
from upsert_cli.store.base import Record, RecordRef, Verdict
from upsert_cli.store.process import StoreProcess
from upsert_cli.verify.collections import opened
from upsert_cli.verify.expected import Subject
from upsert_cli.verify.verification import Repaired, Verification, examine


def repair(subject: Subject, *, context: RunContext) -> Verification:
    """Repair a collection, and return the findings after it, with the work done.

    Args:
        subject: The collection.
        context: Reports each step that may take long.

    Raises:
        Refusal: Nothing says which model the vectors come from, or they came with items and no task with their sources
            is named; only the queue was repaired. Or the weights in the given folder are others, and nothing was.
        TargetDamaged: The collection still cannot be read.
    """
    subject.check_given_model()
    location = subject.location()
    repairer = cache(partial(_Repairer, subject, context))
    look_again = partial(examine, subject, context=context, gives_up=False)
    found, damage = _look(subject, context)
    done = Repaired(damage=None if damage is None else damage.detail, before=found)
    if damage is not None and (removed := location.take_poison()):
        context.info(f"removed {len(removed)} rows that blocked the collection's queue")
        done.removed = removed
        found, damage = _look(subject, context)
    if found is None or found.index_is_lost:
        embeds = repairer().embeds
        if embeds:
            repairer().embedder()  # before anything is moved: without the model nothing could be rebuilt
        if embeds or (found.queries_fail if found is not None else not isinstance(damage, VectorsMissing)):
            done.aside = location.put_index_aside()  # a server indexes records that are written again by itself
        context.info(f"rebuilding the index from the {'stored documents' if embeds else 'sources'}")
        done.written += repairer().write_all()
        found = look_again()
    if found.unreachable and found.asked < found.records:
        # An index that has dropped one of a sample has dropped others. With chromadb 1.5.9 that was one in 700 of the
        # records that were replaced where all vectors were close to each other, and none of 4,000 with the default
        # model. Writing a dropped record again brought it back each time.
        context.info("looking for every record by its own vector")
        found = look_again(ask_all=True)
    if found.wrong:
        context.info(f"writing {len(found.wrong - found.stale.keys())} records again")
        done.written += repairer().write_again(found)
        found = look_again()
    found.repaired = done
    return found


def _look(subject: Subject, context: RunContext) -> tuple[Verification | None, TargetDamaged | None]:
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
                f"only their sources have them: `upsert-cli verify --repair {subject.loaded_by() or 'TASK_ID'}` reads "
                f"those of a task again, and `upsert-cli list` shows the tasks"
            )
        self._opened = partial(opened, subject.target, context=context, task_id=subject.task_id)
        self.embedder = cache(partial(load_model, self._model))
        self.embeds = isinstance(self._model, Model)
        """Whether a model can make the vectors again; otherwise they are only in the sources and in the index."""

    def write_all(self) -> int:
        """Write every record again, from the sources if it brought its vector, otherwise from its stored document.

        Returns:
            The number of written records.
        """
        with self._opened() as store:
            own = sum(1 for _ in self._write(self._from_sources(store, None), store))
            blocks = (store.fetch(start=start, rows=MAX_ROWS) for start in itertools.count(0, MAX_ROWS))
            stored = itertools.takewhile(len, blocks)
            return own + sum(1 for _ in self._write(self._from_store(stored), store))

    def write_again(self, found: Verification) -> int:
        """Write wrong records again, and return their number; delete stale ones."""
        stale = found.stale.keys()
        with self._opened() as store:
            done = set(self._write(self._from_sources(store, found), store))
            for ids in _blocks(stale):
                records = store.fetch(ids)
                store.delete([RecordRef(one.id, str(one.metadata.get(HASH_KEY))) for one in records])
            rest = (store.fetch(ids) for ids in _blocks(found.wrong - stale - done))
            return len(done) + sum(1 for _ in self._write(self._from_store(rest), store))

    def _write(self, batches: Iterator[Batch], store: StoreProcess) -> Iterator[str]:
        """Yield the ids of the written records; each batch is written before the next one is compared."""
        effort = self._subject.options.effort
        for embedded in embed(batches, load=self.embedder, effort=effort):
            self._context.check()
            for rows in (embedded.upserts(), embedded.updates()):
                if rows.ids:
                    refused = {one for one, _ in store.write(rows)}
                    yield from (one for one in rows.ids if one not in refused)

    def _from_sources(self, store: StoreProcess, found: Verification | None) -> Iterator[Batch]:
        """Yield the documents to write again: those of wrong records, or all that bring their vectors."""
        wrong: Set[str] = frozenset() if found is None else found.wrong - found.stale.keys()
        for batch in self._subject.batches():
            items = {one.item.object_id for one in batch.documents if one.id in wrong}
            documents = tuple(
                one
                for one in batch.documents
                # All chunks of an item, since their average may be wrong.
                if (one.vector is not None if found is None else one.item.object_id in items)
            )
            if not documents:
                continue
            comparison = compare_documents(documents, store, force=True)
            if found is not None:
                verdicts = [
                    _verdict_on(document.id, verdict, wrong=wrong, outdated=found.outdated)
                    for document, verdict in zip(documents, comparison.verdicts, strict=True)
                ]
                comparison = replace(comparison, verdicts=verdicts)
            yield replace(batch, documents=documents, comparison=comparison)

    def _from_store(self, blocks: Iterable[Sequence[Record]]) -> Iterator[Batch]:
        subject, identity = self._subject, self._model.hashed
        for number, block in enumerate(blocks):
            # A vector that came with its item is only in the sources; no model can make it again.
            documents = tuple(
                document_of_record(
                    one.id,
                    one.text,
                    one.metadata,
                    collection=subject.target.collection,
                    # Chroma takes no record without any metadata.
                    identity=identity if subject.identity is not None or not one.metadata else None,
                )
                for one in block
                if self.embeds and one.text and not has_own_vector(one.metadata.get(HASH_KEY))
            )
            yield Batch.of(documents, Verdict.TEXT, number=number)


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
