"""What became of the items of a batch, each once, however many records it has."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from upsert_cli.counts import Counts
from upsert_cli.documents.document import Document
from upsert_cli.load.write import Written
from upsert_cli.pipeline.batches import Batch
from upsert_cli.sources.item import Reject
from upsert_cli.store.base import Comparison, RecordRef, Verdict


class RowResult(NamedTuple):
    """An item that was loaded, by its last row."""

    row: int

    counted_as: str
    """`inserted`, `updated` or `unchanged`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """What became of one batch."""

    counts: Counts
    converted: int
    """Values that were changed to fit, of the items that were written."""

    rejects: Sequence[Reject]

    loaded: Mapping[str, RowResult]
    """By id."""

    stale: Sequence[RecordRef]
    """Records that items which were loaded have no longer."""

    def counting_as_new(self, ids: Set[str]) -> BatchOutcome:
        """Returns the same, but what was loaded of these ids is new."""
        old = Counter(one.counted_as for object_id, one in self.loaded.items() if object_id in ids)
        new = {object_id: RowResult(self.loaded[object_id].row, "inserted") for object_id in ids & self.loaded.keys()}
        counts = self.counts + Counts(**{name: -rows for name, rows in old.items()}) + Counts(inserted=len(new))
        return replace(self, counts=counts, loaded={**self.loaded, **new})

    def and_then(self, other: BatchOutcome) -> BatchOutcome:
        """Returns what became of both batches."""
        return BatchOutcome(
            counts=self.counts + other.counts,
            converted=self.converted + other.converted,
            rejects=[*self.rejects, *other.rejects],
            loaded={**self.loaded, **other.loaded},
            stale=[*self.stale, *other.stale],
        )


@dataclass(slots=True)
class _Fate:
    """What is known of an item so far."""

    row: int
    verdicts: set[Verdict] = field(default_factory=set)
    converted: int = 0
    reject: Reject | None = None

    def add(self, document: Document, verdict: Verdict, reject: Reject | None) -> None:
        self.verdicts.add(verdict)
        if verdict is not Verdict.UNCHANGED:
            self.converted += document.converted
        self.reject = self.reject or reject

    def name(self, *, has_leftovers: bool) -> str:
        """Returns which count the item, which was not rejected, belongs to."""
        if has_leftovers or len(self.verdicts) > 1:
            return "updated"
        return _COUNTED_AS[next(iter(self.verdicts))]


_COUNTED_AS = {
    Verdict.NEW: "inserted",
    Verdict.TEXT: "updated",
    Verdict.METADATA: "updated",
    Verdict.UNCHANGED: "unchanged",
}


class Outcomes:
    """Sums up batches in their order; remembers an item whose parts go on in the next."""

    def __init__(self) -> None:
        """Nothing has happened yet."""
        self._unfinished: dict[str, _Fate] = {}

    def of_written(self, written: Sequence[Written]) -> BatchOutcome:
        """Returns what became of a batch, and of what took the place of some of its items, together."""
        first, *others = [
            self.of(
                one.embedded.batch,
                one.embedded.comparison,
                refused=(*one.embedded.rejects, *one.refused),
                truncated=one.embedded.truncated,
            )
            for one in written
        ]
        # Of an item with parts some may have been written before another was refused: the row before finds them there.
        new = written[0].embedded.new_ids()
        return functools.reduce(BatchOutcome.and_then, [one.counting_as_new(new) for one in others], first)

    def of(
        self, batch: Batch, comparison: Comparison, *, refused: Iterable[Reject] = (), truncated: int = 0
    ) -> BatchOutcome:
        """Returns what became of a batch.

        Args:
            batch: One after the other, none left out.
            comparison: Of its documents.
            refused: One for each document that could not be embedded or written.
            truncated: Texts that were cut.
        """
        fates = self._fates(batch, comparison.verdicts, {(one.source, one.row): one for one in refused})
        self._unfinished = fates if batch.goes_on else {}
        done = {} if batch.goes_on else fates
        kept = [one for one in done if done[one].reject is None]
        leftovers = {one: comparison.stale_chunks[one] for one in kept if one in comparison.stale_chunks}
        rejects = [*batch.rejects, *(fate.reject for fate in done.values() if fate.reject is not None)]
        loaded = {one: RowResult(done[one].row, done[one].name(has_leftovers=one in leftovers)) for one in kept}
        counted = Counter(one.counted_as for one in loaded.values())
        return BatchOutcome(
            counts=Counts(
                read=batch.read, duplicate=batch.duplicate, failed=len(rejects), truncated=truncated, **counted
            ),
            converted=sum(done[one].converted for one in kept),
            rejects=rejects,
            loaded=loaded,
            stale=[member for members in leftovers.values() for member in members],
        )

    def _fates(
        self, batch: Batch, verdicts: Sequence[Verdict], refused: Mapping[tuple[str, int], Reject]
    ) -> dict[str, _Fate]:
        fates: dict[str, _Fate] = {}
        for document, verdict in zip(batch.documents, verdicts, strict=True):
            object_id = document.item.object_id
            if object_id not in fates:
                fates[object_id] = self._unfinished.get(object_id) or _Fate(document.item.row)
            fates[object_id].add(document, verdict, refused.get((document.item.source, document.item.row)))
        return fates
