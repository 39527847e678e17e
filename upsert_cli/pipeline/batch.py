"""A batch: rows that go through the stages together, the result of each stage, and the outcome of all stages."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from upsert_cli.counts import NOTHING_IGNORED, Converted, Counts, IgnoredFields, Outcome
from upsert_cli.documents.document import Document
from upsert_cli.documents.hashing import as_stored
from upsert_cli.errors import Stage
from upsert_cli.journal.receipts import Loaded
from upsert_cli.sources.item import START, Position, Reject
from upsert_cli.store.base import Comparison, RecordRef, Verdict, WriteBatch

if TYPE_CHECKING:
    from upsert_cli.store.base import Vector, Vectors

NOT_COMPARED = Comparison(verdicts=[])


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A run of consecutive rows as documents; of the rows with one id, only the last is left."""

    number: int
    """From 0 in each attempt."""

    documents: tuple[Document, ...] = ()
    """The documents of each id, in the order of their rows; the average of an item comes before its chunks."""

    rejects: tuple[Reject, ...] = ()
    """Rows that could not be read as items, or made into documents."""

    read: int
    """Rows that were read: items + `len(rejects)` + `duplicate`; 0 if the last item continues in the next batch."""

    duplicate: int = 0
    """Rows that a later row with the same id replaced, in this batch or in an earlier attempt."""

    after: Position
    """The position to continue at once this batch is committed."""

    goes_on: bool = False
    """Whether the chunks of its item continue in the next batch, with which the row is committed."""

    ignored: IgnoredFields = NOTHING_IGNORED

    earlier: Mapping[str, tuple[Sequence[Document], ...]] = field(default_factory=dict)
    """By id, the documents of each row that a later row of this batch replaced, in the order of the rows."""

    comparison: Comparison = NOT_COMPARED
    """How the documents compare with the collection, from the second stage on."""

    failed: Mapping[str, Reject] = field(default_factory=dict)
    """By id, the items that a stage could not load; later stages do not write them."""

    vectors: Mapping[int, Vector] = field(default_factory=dict)
    """Float32, by the index in `documents` of each record to write with its vector, from the third stage on."""

    truncated: int = 0
    """Texts that the model cut at its limit."""

    embedding_seconds: float = 0.0
    """Wall seconds for embedding."""

    writing_seconds: float = 0.0
    """Wall seconds for writing."""

    @classmethod
    def of(cls, documents: tuple[Document, ...], verdict: Verdict, *, number: int = 0) -> Batch:
        """Return a batch of documents that were not read from rows, all with one verdict."""
        comparison = Comparison(verdicts=[verdict] * len(documents))
        return cls(number=number, documents=documents, read=0, after=START, comparison=comparison)

    @property
    def rows(self) -> int:
        """The number of records to write or of rows read, the larger of both."""
        return max(self.read, len(self.documents))

    @property
    def is_unchanged(self) -> bool:
        """Whether there is nothing to write, since the collection has each document already."""
        return not self.failed and self.comparison.verdicts.count(Verdict.UNCHANGED) == len(self.documents)

    def rejecting(self, faults: Iterable[tuple[Document, str]], stage: Stage) -> Batch:
        """Return the batch with a reject for the item of each faulty document; the first fault of an item counts."""
        failed = dict(self.failed)
        for document, detail in faults:
            if document.item.object_id not in failed:
                failed[document.item.object_id] = Reject.of(document.item, stage=stage, detail=detail)
        return replace(self, failed=failed)

    def fallback(self) -> Batch | None:
        """Return a batch with the previous row of each id that could not be loaded, or None.

        This batch counts these rows as duplicates, so the fallback has a negative number of duplicates.
        """
        if not self.earlier:
            return None
        loaded = {document.item.object_id for document in self.documents}.difference(self.failed)
        chosen = [object_id for object_id in self.earlier if object_id not in loaded]
        if not chosen:
            return None
        return Batch(
            number=self.number,
            documents=tuple(itertools.chain.from_iterable(self.earlier[one][-1] for one in chosen)),
            read=0,
            duplicate=-len(chosen),
            after=self.after,
            earlier={one: self.earlier[one][:-1] for one in chosen if self.earlier[one][:-1]},
        )

    def upserts(self) -> WriteBatch:
        """Return the records to write with their vectors."""
        import numpy as np

        return self._records([*self.vectors], np.stack([*self.vectors.values()]) if self.vectors else None)

    def updates(self) -> WriteBatch:
        """Return the records whose metadata alone changed."""
        rows = [
            row
            for row, (document, verdict) in enumerate(zip(self.documents, self.comparison.verdicts, strict=True))
            if verdict is Verdict.METADATA
            and document.item.object_id not in self.failed
            and (not self.goes_on or not document.is_average)  # the average is written with the last chunk
        ]
        return self._records(rows, None)

    def embedded_items(self) -> set[str]:
        """Return the ids of the items with a text that was embedded."""
        documents = [self.documents[row] for row in self.vectors]
        return {document.item.object_id for document in documents if document.vector is None}

    def new_ids(self) -> set[str]:
        """Return the ids of the items that had no record in the collection when the batch was compared."""
        pairs = zip(self.documents, self.comparison.verdicts, strict=True)
        known = {document.item.object_id for document, verdict in pairs if verdict is not Verdict.NEW}
        return {document.item.object_id for document in self.documents} - known

    def _records(self, rows: Sequence[int], vectors: Vectors | None) -> WriteBatch:
        documents = [self.documents[row] for row in rows]
        stored = [self.comparison.stored_keys.get(row, ()) for row in rows]
        return WriteBatch(
            ids=[document.id for document in documents],
            texts=[document.text if document.has_text else None for document in documents],
            # The store merges metadata; a value of None removes a key that the item no longer has.
            metadatas=[
                dict.fromkeys(keys) | as_stored(document.metadata)
                for document, keys in zip(documents, stored, strict=True)
            ],
            vectors=vectors,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome(Outcome):
    """The outcome of a batch and its fallbacks."""

    after: Position
    """The position to continue at once the batch is committed."""

    loaded: Iterable[tuple[str, Loaded]]
    """Ids of items and how they were loaded, in any order; can be read only once."""

    stale: Sequence[RecordRef] = ()
    """Records that are no longer part of the loaded items."""


@dataclass(slots=True)
class _ItemResult:
    """The result of one item, whose documents may be in several batches."""

    row: int
    verdict: Verdict
    """The verdict on all its documents; TEXT if they differ."""

    converted: list[tuple[str, str]] = field(default_factory=list)
    reject: Reject | None = None

    def loaded(self, *, is_new: bool, has_stale_chunks: bool) -> Loaded:
        """Return the outcome of an item that was not rejected."""
        verdict = Verdict.NEW if is_new else Verdict.TEXT if has_stale_chunks else self.verdict
        return Loaded(self.row, inserted=verdict is Verdict.NEW, unchanged=verdict is Verdict.UNCHANGED)


class Outcomes:
    """The outcomes of consecutive batches; an item that continues in the next batch is counted there."""

    def __init__(self) -> None:
        self._unfinished: dict[str, _ItemResult] = {}

    def of_written(self, written: Sequence[Batch]) -> BatchOutcome:
        """Return the outcome of a written batch and its fallbacks together."""
        first, *fallbacks = written
        outcome = self.of(first)
        # Some chunks of an item may be written before another is refused, and the fallback row is compared with them.
        new = first.new_ids() if fallbacks else set[str]()
        for fallback in fallbacks:
            again = self.of(fallback, new=new)
            loaded, stale = itertools.chain(outcome.loaded, again.loaded), [*outcome.stale, *again.stale]
            outcome = replace(outcome.plus(again), loaded=loaded, stale=stale)
        return outcome

    def of(self, batch: Batch, *, new: Set[str] = frozenset()) -> BatchOutcome:
        """Return the outcome of the next batch, with the items of `new` counted as inserted."""
        is_whole = not self._unfinished and not batch.goes_on
        if is_whole and batch.is_unchanged and not batch.comparison.stale_chunks and not new:
            return _of_unchanged(batch)
        results = self._results(batch)
        self._unfinished, done = (results, {}) if batch.goes_on else ({}, results)
        return _outcome(batch, done, new)

    def _results(self, batch: Batch) -> dict[str, _ItemResult]:
        results: dict[str, _ItemResult] = {}
        unchanged = Verdict.UNCHANGED  # looked up once, since this runs for every row
        for document, verdict in zip(batch.documents, batch.comparison.verdicts, strict=True):
            object_id = document.item.object_id
            known = results.get(object_id) or self._unfinished.get(object_id)
            results[object_id] = result = known or _ItemResult(document.item.row, verdict)
            if verdict is not result.verdict:
                result.verdict = Verdict.TEXT
            if verdict is not unchanged:
                result.converted += [(key, str(document.metadata[key])) for key in document.converted]
        for object_id in results.keys() & batch.failed.keys():
            results[object_id].reject = results[object_id].reject or batch.failed[object_id]
        return results


def _outcome(batch: Batch, done: Mapping[str, _ItemResult], new: Set[str]) -> BatchOutcome:
    """Return the outcome of a batch, given the results of its items that are done."""
    rejects = [*batch.rejects, *(result.reject for result in done.values() if result.reject is not None)]
    kept = {object_id: result for object_id, result in done.items() if result.reject is None}
    stale = {one: records for one, records in batch.comparison.stale_chunks.items() if one in kept}
    loaded = {
        object_id: result.loaded(is_new=object_id in new, has_stale_chunks=object_id in stale)
        for object_id, result in kept.items()
    }
    return BatchOutcome(
        after=batch.after,
        counts=Counts(
            read=batch.read,
            duplicate=batch.duplicate,
            failed=len(rejects),
            truncated=batch.truncated,
            **_counted(loaded),
        ),
        converted=Converted.of(itertools.chain.from_iterable(result.converted for result in kept.values())),
        ignored=batch.ignored,
        rejects=[reject.as_json() for reject in rejects],
        loaded=loaded.items(),
        stale=[record for records in stale.values() for record in records],
    )


def _of_unchanged(batch: Batch) -> BatchOutcome:
    """Return the outcome of a batch that changes nothing, at a tenth of the cost for each row."""
    return BatchOutcome(
        after=batch.after,
        counts=Counts(
            read=batch.read,
            duplicate=batch.duplicate,
            failed=len(batch.rejects),
            unchanged=len({document.item.object_id for document in batch.documents}),
        ),
        ignored=batch.ignored,
        rejects=[reject.as_json() for reject in batch.rejects],
        loaded=((one.item.object_id, Loaded(one.item.row, inserted=False, unchanged=True)) for one in batch.documents),
    )


def _counted(loaded: Mapping[str, Loaded]) -> Counter[str]:
    """Return the number of items by the name of their count."""
    names = ("inserted" if one.inserted else "unchanged" if one.unchanged else "updated" for one in loaded.values())
    return Counter(names)
