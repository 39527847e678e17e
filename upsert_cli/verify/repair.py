"""Repairs a collection: writes missing, unreadable and different records again, and rebuilds an unreadable index.

A record comes from the sources of the task where they have it, otherwise from its document and metadata in the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace
from functools import cache, partial

from upsert_cli.context import RunContext
from upsert_cli.documents.hashing import HASH_KEY, has_own_vector
from upsert_cli.documents.stored_items import document_of_record
from upsert_cli.embedding.embedder import load_model
from upsert_cli.embedding.identity import Model
from upsert_cli.errors import TargetDamaged
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.compare import compare_documents
from upsert_cli.pipeline.embed import embed
from upsert_cli.store.base import Record, RecordRef, Verdict
from upsert_cli.store.process import CALL_ROWS, StoreProcess, open_as_found
from upsert_cli.verify.expected import expected_batches
from upsert_cli.verify.subject import Subject
from upsert_cli.verify.verification import Repaired, Verification, examine


def repair(subject: Subject, *, context: RunContext) -> Verification:
    """Repair a collection, and return the findings after the repair, with a report of the work.

    Args:
        subject: The collection.
        context: Receives a message before each step that may take long.

    Raises:
        Refusal: Neither a model nor the sources of a task can make the vectors again, so at most the queue was
            repaired; or the given folder has other weights than the collection.
        TargetDamaged: The collection still cannot be read.
    """
    subject.check_given_model()
    rewriter = cache(partial(_Rewriter, subject, context))  # at its first use, since it may refuse
    look_again = partial(examine, subject, context=context, gives_up=False)
    found, damage = _look(subject, context)
    done = Repaired(damage=None if damage is None else damage.detail, before=found)
    if damage is not None and (removed := subject.location().take_poison()):
        context.info(f"removed {len(removed)} rows that blocked the collection's queue")
        done.removed = removed
        found, damage = _look(subject, context)
    if found is None or found.index_is_lost:
        is_unusable = found.queries_fail if found is not None else damage is not None and not damage.lacks_vectors
        done.aside = rewriter().put_index_aside(is_unusable=is_unusable)
        done.written += rewriter().write_all()
        found = look_again()
    if found.unreachable and found.asked < found.records:
        # An index that has dropped one record of a sample has dropped others. chromadb 1.5.9 dropped one in 700 of the
        # replaced records where all vectors were close to each other, and none of 4,000 with the default model. Writing
        # a dropped record again brought it back each time.
        context.info("looking for every record by its own vector")
        found = look_again(ask_all=True)
    if found.wrong:
        context.info(f"writing {len(found.wrong - found.stale.keys())} records again")
        done.written += rewriter().write_wrong(found)
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


class _Rewriter:
    """Embeds records of a collection and writes them again."""

    def __init__(self, subject: Subject, context: RunContext) -> None:
        self._subject = subject
        self._context = context
        self._vectors = subject.vectors()
        self._opened = partial(open_as_found, subject.target, context=context, task_id=subject.task_id)
        self._embedder = cache(partial(load_model, self._vectors))
        self._embeds = isinstance(self._vectors, Model)
        """Whether a model can make the vectors again; otherwise only the sources and the index have them."""

    def put_index_aside(self, *, is_unusable: bool) -> Sequence[str]:
        """Rename the folders of the index before `write_all`, and return their new names.

        An index with vectors that no model can make stays, unless it is unusable. A server has no such folders, and
        repairs its index while records are written.
        """
        if self._embeds:
            self._embedder()  # before the index is moved, since only the model can rebuild it
        self._context.info(f"rebuilding the index from the {'stored documents' if self._embeds else 'sources'}")
        return self._subject.location().put_index_aside() if self._embeds or is_unusable else ()

    def write_all(self) -> int:
        """Write every record again, and return their number.

        A record that brought its vector comes from the sources, any other record from the store.
        """
        with self._opened() as store:
            own = sum(1 for _ in self._write(self._with_own_vectors(store), store))
            return own + sum(1 for _ in self._write(self._from_store(_all_records(store)), store))

    def write_wrong(self, found: Verification) -> int:
        """Write wrong records again, and return their number; delete the stale records."""
        with self._opened() as store:
            done = set(self._write(self._wrong_in_sources(store, found), store))
            for records in _records(store, found.stale.keys()):
                store.delete([RecordRef(record.id, str(record.metadata.get(HASH_KEY))) for record in records])
            rest = _records(store, found.wrong - found.stale.keys() - done)
            return len(done) + sum(1 for _ in self._write(self._from_store(rest), store))

    def _write(self, batches: Iterator[Batch], store: StoreProcess) -> Iterator[str]:
        """Yield the ids of the written records; each batch is written before the next one is compared."""
        for embedded in embed(batches, load=self._embedder, effort=self._subject.options.effort):
            self._context.check()
            for rows in (embedded.upserts(), embedded.updates()):
                if rows.ids:
                    refused = {identifier for identifier, _ in store.write(rows)}
                    yield from (identifier for identifier in rows.ids if identifier not in refused)

    def _with_own_vectors(self, store: StoreProcess) -> Iterator[Batch]:
        """Yield the documents of the sources that bring their vectors."""
        for batch in expected_batches(self._subject):
            documents = tuple(document for document in batch.documents if document.vector is not None)
            if documents:
                yield replace(batch, documents=documents, comparison=compare_documents(documents, store, force=True))

    def _wrong_in_sources(self, store: StoreProcess, found: Verification) -> Iterator[Batch]:
        """Yield the documents of the sources whose records are wrong."""
        wrong = found.wrong - found.stale.keys()
        for batch in expected_batches(self._subject):
            # All chunks of an item, since their average may be wrong.
            items = {document.item.object_id for document in batch.documents if document.id in wrong}
            documents = tuple(document for document in batch.documents if document.item.object_id in items)
            if not documents:
                continue
            comparison = compare_documents(documents, store, force=True)
            verdicts = [
                _verdict_on(document.id, verdict, wrong=wrong, outdated=found.outdated)
                for document, verdict in zip(documents, comparison.verdicts, strict=True)
            ]
            yield replace(batch, documents=documents, comparison=replace(comparison, verdicts=verdicts))

    def _from_store(self, blocks: Iterable[Sequence[Record]]) -> Iterator[Batch]:
        """Yield the documents of stored records that a model can embed again."""
        subject, identity = self._subject, self._vectors.hashed
        for number, block in enumerate(blocks):
            documents = tuple(
                document_of_record(
                    record.id,
                    record.text,
                    record.metadata,
                    collection=subject.target.collection,
                    # Chroma takes no record without any metadata.
                    identity=identity if subject.identity is not None or not record.metadata else None,
                )
                for record in block
                # No model can make a vector that came with its item.
                if self._embeds and record.text and not has_own_vector(record.metadata.get(HASH_KEY))
            )
            yield Batch.of(documents, Verdict.TEXT, number=number)


def _verdict_on(identifier: str, verdict: Verdict, *, wrong: Set[str], outdated: Set[str]) -> Verdict:
    """Return how to write a record: by the verdict of the comparison, its metadata alone, or not at all."""
    if identifier in outdated:
        return Verdict.METADATA
    return verdict if identifier in wrong else Verdict.UNCHANGED


def _all_records(store: StoreProcess) -> Iterator[Sequence[Record]]:
    start = 0
    while block := store.fetch(start=start, rows=CALL_ROWS):
        yield block
        start += CALL_ROWS


def _records(store: StoreProcess, ids: Set[str]) -> Iterator[Sequence[Record]]:
    """Yield the records with some ids, in blocks."""
    ordered = sorted(ids)
    for start in range(0, len(ordered), CALL_ROWS):
        yield store.fetch(ordered[start : start + CALL_ROWS])
