"""Mends a collection: writes again what is missing, unreadable or different, and makes an unreadable index anew.

What a task's sources have is taken from there; everything else from the documents and metadata that Chroma still holds.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import replace

from upsert_cli import embedding
from upsert_cli.documents.document import Document
from upsert_cli.documents.hashing import HASH_KEY, exact, has_own_vector, stored_fault, stored_hash
from upsert_cli.errors import ItemError, TargetDamaged
from upsert_cli.load.write import delete_stale_chunks
from upsert_cli.pipeline.batches import Batch
from upsert_cli.pipeline.compare import Plan, compared, forced
from upsert_cli.pipeline.embed import embed_batches
from upsert_cli.pipeline.pace import MAX_ROWS
from upsert_cli.sources.item import START, Item
from upsert_cli.store.base import Comparison, Record, RecordRef, Verdict, WriteBatch
from upsert_cli.store.locations import location_of
from upsert_cli.store.process import StoreProcess
from upsert_cli.verify.expected import Subject
from upsert_cli.verify.verification import Findings, Repaired, Report, Verification, examine, opened

_NOTHING = WriteBatch(ids=[], texts=[], metadatas=[], vectors=None)


def repair(subject: Subject, *, report: Report) -> Verification:
    """Mends a collection, and tells how it is after that and what was done.

    Args:
        subject: What to mend, and the sources to mend it from.
        report: Told of each step that may take long.

    Raises:
        ModelUnknown: Nothing says which model its vectors are of; only the queue was mended.
        TargetDamaged: It cannot be read still.
    """
    removed: list[str] = []
    aside: list[str] = []
    written = 0
    upkeep = location_of(subject.target).upkeep  # without one, records that are written again are indexed again
    found, damage = _look(subject, report)
    before = found
    if damage is not None and upkeep is not None and (removed := upkeep.take_poison()):
        report(f"took {len(removed)} rows that blocked it out of the collection's queue")
        found, _ = _look(subject, report)
    if found is None or found.index_is_lost:
        mender = _Mender(subject, report)  # before anything is moved: without the model nothing could be made again
        aside = [] if upkeep is None else upkeep.put_index_aside()
        report("making the index anew from the stored documents")
        written += mender.write_all_stored()
        found = examine(subject, report=report)
    if found.unreachable and found.asked < found.records:
        # Where an index has dropped one of a sample it has dropped others. With chromadb 1.5.9 that was one in 700 of
        # the records that were replaced where all vectors were close to each other, and none of 4,000 with the default
        # model; to write one again brought it back each time.
        report("looking for every record by its own vector")
        found = examine(subject, report=report, ask_all=True)
    if found.wrong:
        stale = found.stale.keys()
        report(f"writing {len(found.wrong - stale)} records again")
        written += _Mender(subject, report).write_again(found.wrong - stale, stale)
        found = examine(subject, report=report)
    repaired = Repaired(damage=damage, before=before, removed=tuple(removed), aside=tuple(aside), written=written)
    return Verification(subject=subject, found=found, repaired=repaired)


def _look(subject: Subject, report: Report) -> tuple[Findings | None, str | None]:
    try:
        return examine(subject, report=report), None
    except TargetDamaged as error:
        report(str(error))
        return None, error.detail


class _Mender:
    """Embeds and writes again."""

    def __init__(self, subject: Subject, report: Report) -> None:
        self._subject = subject
        self._report = report
        self._model = subject.model()
        self._embedder = embedding.load(self._model)

    def write_all_stored(self) -> int:
        """Writes every record again from what Chroma holds of it, and returns how many."""
        with opened(self._subject, report=self._report) as writer:
            return sum(1 for _ in self._write(self._stored_plans(_all_stored(writer)), writer))

    def write_again(self, wrong: Set[str], stale: Set[str]) -> int:
        """Writes some records again, from the sources where they have them, and returns how many; deletes others."""
        with opened(self._subject, report=self._report) as writer:
            done = set(self._write(self._source_plans(wrong, writer), writer))
            for start in range(0, len(stale), MAX_ROWS):
                part = writer.fetch(sorted(stale)[start : start + MAX_ROWS])
                delete_stale_chunks([RecordRef(one.id, str(one.metadata.get(HASH_KEY))) for one in part], writer)
            rest = sorted(wrong - done)
            parts = (rest[start : start + MAX_ROWS] for start in range(0, len(rest), MAX_ROWS))
            stored = self._stored_plans(writer.fetch(ids) for ids in parts)
            return len(done) + sum(1 for _ in self._write(stored, writer))

    def _write(self, plans: Iterator[Plan], writer: StoreProcess) -> Iterator[str]:
        """Yields the ids of what was written; each batch is written before the next one is compared."""
        for embedded in embed_batches(
            plans,
            load=lambda: self._embedder,
            effort=self._subject.options.effort,
            ending=threading.Event(),
            clock=time.monotonic,
        ):
            if not embedded.rows:
                continue
            rows = embedded.upserts()
            refused = {one for one, _ in writer.write(rows, _NOTHING)}
            yield from (one for one in rows.ids if one not in refused)

    def _source_plans(self, wrong: Set[str], writer: StoreProcess) -> Iterator[Plan]:
        for batch in self._subject.batches():
            items = {one.item.object_id for one in batch.documents if one.id in wrong}
            # All parts of an item, since the mean of them may be what is wrong.
            documents = tuple(one for one in batch.documents if one.item.object_id in items)
            if documents:
                comparison = compared(documents, writer)
                again = forced(comparison).verdicts
                verdicts = [
                    verdict if one.id in wrong else Verdict.UNCHANGED
                    for one, verdict in zip(documents, again, strict=True)
                ]
                yield Plan(batch=replace(batch, documents=documents), comparison=replace(comparison, verdicts=verdicts))

    def _stored_plans(self, parts: Iterable[Sequence[Record]]) -> Iterator[Plan]:
        for number, part in enumerate(parts):
            # No model makes a vector again that came with its item; only the sources have it.
            again = (one for one in part if one.text and not has_own_vector(one.metadata.get(HASH_KEY)))
            documents = tuple(self._document(one.id, one.text or "", one) for one in again)
            yield Plan(
                batch=Batch(number=number, documents=documents, rejects=(), read=len(part), duplicate=0, after=START),
                comparison=Comparison(verdicts=[Verdict.TEXT] * len(documents), stale_keys=[()] * len(documents)),
            )

    def _document(self, identifier: str, text: str, stored: Record) -> Document:
        """Returns a stored record as it is written again, with the hash of what it holds now."""
        metadata = stored.metadata
        ours = self._subject.identity is not None or not metadata  # Chroma takes no record without any metadata
        if ours and stored_fault(text, metadata, self._model.identity) is None:
            metadata = exact(metadata)  # written again as it was returned, it would be rounded once more
        elif ours:
            with suppress(ItemError):  # too large for a hash of ours: stored by others, and left as it is
                metadata = metadata | {HASH_KEY: stored_hash(text, metadata, self._model.identity)}
        item = Item(identifier, None, None, self._subject.target.collection, 0)
        return Document(identifier, text, metadata, str(metadata.get(HASH_KEY, "")), item, 0)


def _all_stored(writer: StoreProcess) -> Iterator[Sequence[Record]]:
    for start in itertools.count(0, MAX_ROWS):
        part = writer.fetch(start=start, rows=MAX_ROWS)
        if not part:
            return
        yield part
