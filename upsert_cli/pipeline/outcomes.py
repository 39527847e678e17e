"""The results of written batches, with one outcome for each item, however many records it has."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from upsert_cli.counts import Counts
from upsert_cli.documents.document import Document
from upsert_cli.pipeline.batches import Batch
from upsert_cli.pipeline.write import WrittenBatch
from upsert_cli.sources.item import Reject
from upsert_cli.store.base import Comparison, RecordRef, Verdict


class LoadedItem(NamedTuple):
    """An item that was loaded."""

    row: int
    """Its last row."""

    counted_as: str
    """`inserted`, `updated` or `unchanged`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """The result of one batch, to be committed."""

    batch: Batch
    counts: Counts

    converted: int
    """Values that were converted to fit, in the items that were written."""

    rejects: Sequence[Reject]

    loaded: Mapping[str, LoadedItem]
    """By id."""

    stale: Sequence[RecordRef]
    """Records that loaded items no longer have."""

    def counting_as_new(self, ids: Set[str]) -> BatchOutcome:
        """Return the same result with the loaded items of `ids` counted as inserted."""
        old = Counter(one.counted_as for object_id, one in self.loaded.items() if object_id in ids)
        new = {object_id: LoadedItem(self.loaded[object_id].row, "inserted") for object_id in ids & self.loaded.keys()}
        counts = self.counts + Counts(**{name: -rows for name, rows in old.items()}) + Counts(inserted=len(new))
        return replace(self, counts=counts, loaded={**self.loaded, **new})

    def plus(self, other: BatchOutcome) -> BatchOutcome:
        """Return the result of this batch and of its fallback."""
        return BatchOutcome(
            batch=self.batch,
            counts=self.counts + other.counts,
            converted=self.converted + other.converted,
            rejects=[*self.rejects, *other.rejects],
            loaded={**self.loaded, **other.loaded},
            stale=[*self.stale, *other.stale],
        )


@dataclass(slots=True)
class _ItemResult:
    """The result of one item so far."""

    row: int
    verdicts: set[Verdict] = field(default_factory=set)
    converted: int = 0
    reject: Reject | None = None

    def add(self, document: Document, verdict: Verdict, reject: Reject | None) -> None:
        self.verdicts.add(verdict)
        if verdict is not Verdict.UNCHANGED:
            self.converted += document.converted
        self.reject = self.reject or reject

    def counted_as(self, *, has_stale_chunks: bool) -> str:
        """Return the count of an item that was not rejected."""
        if has_stale_chunks or len(self.verdicts) > 1:
            return "updated"
        return _COUNTED_AS[next(iter(self.verdicts))]


_COUNTED_AS = {
    Verdict.NEW: "inserted",
    Verdict.TEXT: "updated",
    Verdict.METADATA: "updated",
    Verdict.UNCHANGED: "unchanged",
}


class Outcomes:
    """Results of batches in their order; an item whose chunks continue in the next batch is counted there."""

    def __init__(self) -> None:
        self._unfinished: dict[str, _ItemResult] = {}

    def of_written(self, written: Sequence[WrittenBatch]) -> BatchOutcome:
        """Return the result of a batch and its fallbacks together."""
        first, *fallbacks = [
            self.of(
                one.embedded.batch,
                one.embedded.comparison,
                refused=(*one.embedded.rejects, *one.refused),
                truncated=one.embedded.truncated,
            )
            for one in written
        ]
        # Some chunks of an item may be written before another is refused: the fallback row finds them there.
        new = written[0].embedded.new_ids()
        return functools.reduce(BatchOutcome.plus, [one.counting_as_new(new) for one in fallbacks], first)

    def of(
        self, batch: Batch, comparison: Comparison, *, refused: Iterable[Reject] = (), truncated: int = 0
    ) -> BatchOutcome:
        """Return the result of a batch.

        Args:
            batch: Batches come one after the other, none left out.
            comparison: Of its documents.
            refused: One reject for each document that could not be embedded or written.
            truncated: Texts that were cut.
        """
        results = self._results(batch, comparison.verdicts, {(one.source, one.row): one for one in refused})
        self._unfinished = results if batch.goes_on else {}
        done = {} if batch.goes_on else results
        kept = [one for one in done if done[one].reject is None]
        stale = {one: comparison.stale_chunks[one] for one in kept if one in comparison.stale_chunks}
        rejects = [*batch.rejects, *(result.reject for result in done.values() if result.reject is not None)]
        loaded = {one: LoadedItem(done[one].row, done[one].counted_as(has_stale_chunks=one in stale)) for one in kept}
        counted = Counter(one.counted_as for one in loaded.values())
        return BatchOutcome(
            batch=batch,
            counts=Counts(
                read=batch.read, duplicate=batch.duplicate, failed=len(rejects), truncated=truncated, **counted
            ),
            converted=sum(done[one].converted for one in kept),
            rejects=rejects,
            loaded=loaded,
            stale=[record for records in stale.values() for record in records],
        )

    def _results(
        self, batch: Batch, verdicts: Sequence[Verdict], refused: Mapping[tuple[str, int], Reject]
    ) -> dict[str, _ItemResult]:
        results: dict[str, _ItemResult] = {}
        for document, verdict in zip(batch.documents, verdicts, strict=True):
            object_id = document.item.object_id
            if object_id not in results:
                results[object_id] = self._unfinished.get(object_id) or _ItemResult(document.item.row)
            results[object_id].add(document, verdict, refused.get((document.item.source, document.item.row)))
        return results
