"""The results of written batches, with one outcome for each item, however many records it has."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from upsert_cli.counts import Converted, Counts
from upsert_cli.journal.receipts import Loaded
from upsert_cli.pipeline.batch import Batch
from upsert_cli.sources.item import Reject
from upsert_cli.store.base import RecordRef, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome:
    """The result of one batch, to be committed."""

    batch: Batch
    counts: Counts

    converted: Converted
    """Of the items that were written."""

    rejects: Sequence[Reject]

    loaded: Iterable[tuple[str, Loaded]]
    """Ids of items and how they were loaded, in any order; to be read once."""

    stale: Sequence[RecordRef]
    """Records that loaded items no longer have."""

    def counting_as_new(self, ids: Set[str]) -> BatchOutcome:
        """Return the same result with the loaded items of `ids` counted as inserted."""
        loaded = dict(self.loaded)
        old = {object_id: one for object_id, one in loaded.items() if object_id in ids}
        new = {object_id: Loaded(one.row, inserted=True, unchanged=False) for object_id, one in old.items()}
        counts = self.counts + Counts(**{name: -rows for name, rows in _counted(old).items()}) + Counts(**_counted(new))
        return replace(self, counts=counts, loaded=(loaded | new).items())

    def plus(self, other: BatchOutcome) -> BatchOutcome:
        """Return the result of this batch and of its fallback."""
        return BatchOutcome(
            batch=self.batch,
            counts=self.counts + other.counts,
            converted=self.converted + other.converted,
            rejects=[*self.rejects, *other.rejects],
            loaded=itertools.chain(self.loaded, other.loaded),
            stale=[*self.stale, *other.stale],
        )


@dataclass(slots=True)
class _ItemResult:
    """The result of one item so far."""

    row: int
    verdict: Verdict
    """Of all its records; TEXT if they differ."""

    converted: list[tuple[str, str]] = field(default_factory=list)
    reject: Reject | None = None

    def loaded(self, *, has_stale_chunks: bool) -> Loaded:
        """Return the outcome of an item that was not rejected."""
        verdict = Verdict.TEXT if has_stale_chunks else self.verdict
        return Loaded(self.row, verdict is Verdict.NEW, verdict is Verdict.UNCHANGED)


class Outcomes:
    """Results of batches in their order; an item whose chunks continue in the next batch is counted there."""

    def __init__(self) -> None:
        self._unfinished: dict[str, _ItemResult] = {}

    def of_written(self, written: Sequence[Batch]) -> BatchOutcome:
        """Return the result of a batch and its fallbacks together."""
        first, *fallbacks = map(self.of, written)
        # Some chunks of an item may be written before another is refused: the fallback row finds them there.
        new = written[0].new_ids() if fallbacks else set()
        return functools.reduce(BatchOutcome.plus, [one.counting_as_new(new) for one in fallbacks], first)

    def of(self, batch: Batch) -> BatchOutcome:
        """Return the result of the next batch; none may be left out."""
        if not self._unfinished and _ends_unchanged(batch):
            return _of_unchanged(batch)
        results = self._results(batch)
        self._unfinished = results if batch.goes_on else {}
        done = {} if batch.goes_on else results
        rejects = [*batch.rejects, *(result.reject for result in done.values() if result.reject is not None)]
        kept = {object_id: result for object_id, result in done.items() if result.reject is None}
        stale = {one: records for one, records in batch.comparison.stale_chunks.items() if one in kept}
        loaded = {one: result.loaded(has_stale_chunks=one in stale) for one, result in kept.items()}
        return BatchOutcome(
            batch=batch,
            counts=Counts(
                read=batch.read,
                duplicate=batch.duplicate,
                failed=len(rejects),
                truncated=batch.truncated,
                **_counted(loaded),
            ),
            converted=Converted.of(itertools.chain.from_iterable(result.converted for result in kept.values())),
            rejects=rejects,
            loaded=loaded.items(),
            stale=[record for records in stale.values() for record in records],
        )

    def _results(self, batch: Batch) -> dict[str, _ItemResult]:
        results: dict[str, _ItemResult] = {}
        unchanged = Verdict.UNCHANGED  # looked up once, since this runs for every row
        for document, verdict in zip(batch.documents, batch.comparison.verdicts, strict=True):
            object_id = document.item.object_id
            result = (
                results.get(object_id) or self._unfinished.get(object_id) or _ItemResult(document.item.row, verdict)
            )
            results[object_id] = result
            if verdict is not result.verdict:
                result.verdict = Verdict.TEXT
            if verdict is not unchanged:
                result.converted += [(key, str(document.metadata[key])) for key in document.converted]
        for object_id in results.keys() & batch.failed.keys():
            results[object_id].reject = results[object_id].reject or batch.failed[object_id]
        return results


def _ends_unchanged(batch: Batch) -> bool:
    return batch.is_unchanged and not batch.goes_on and not batch.comparison.stale_chunks


def _of_unchanged(batch: Batch) -> BatchOutcome:
    """Return the result of a batch that changes nothing, at a tenth of the cost for each row."""
    items = (document.item for document in batch.documents)
    return BatchOutcome(
        batch=batch,
        counts=Counts(
            read=batch.read,
            duplicate=batch.duplicate,
            failed=len(batch.rejects),
            unchanged=len({document.item.object_id for document in batch.documents}),
        ),
        converted=Converted(),
        rejects=batch.rejects,
        loaded=((item.object_id, Loaded(item.row, inserted=False, unchanged=True)) for item in items),
        stale=(),
    )


def _counted(loaded: Mapping[str, Loaded]) -> Counter[str]:
    """Return the number of items by the name of their count."""
    names = ("inserted" if one.inserted else "unchanged" if one.unchanged else "updated" for one in loaded.values())
    return Counter(names)
