"""The outcomes of written batches: one for each item, however many records it has."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from upsert_cli.counts import Converted, Counts, Outcome
from upsert_cli.journal.receipts import Loaded
from upsert_cli.pipeline.batch import Batch
from upsert_cli.sources.item import Position, Reject
from upsert_cli.store.base import RecordRef, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOutcome(Outcome):
    """The outcome of a batch and its fallbacks."""

    after: Position
    """Where to continue once it is committed."""

    loaded: Mapping[str, Loaded]
    """By id."""

    stale: Sequence[RecordRef] = ()
    """Records that loaded items no longer have."""

    def counting_as_new(self, ids: Set[str]) -> BatchOutcome:
        """Return the same outcome with the loaded items of `ids` counted as inserted."""
        old = {object_id: one for object_id, one in self.loaded.items() if object_id in ids}
        new = {object_id: Loaded(one.row, inserted=True, unchanged=False) for object_id, one in old.items()}
        counts = self.counts + Counts(**{name: -rows for name, rows in _counted(old).items()}) + Counts(**_counted(new))
        return replace(self, counts=counts, loaded={**self.loaded, **new})


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
        """Return the outcome of a batch and its fallbacks together."""
        outcome, *fallbacks = map(self.of, written)
        # Some chunks of an item may be written before another is refused: the fallback row finds them there.
        new = written[0].new_ids() if fallbacks else set()
        for fallback in fallbacks:
            again = fallback.counting_as_new(new)
            both = outcome.plus(again)
            outcome = replace(both, loaded={**outcome.loaded, **again.loaded}, stale=[*outcome.stale, *again.stale])
        return outcome

    def of(self, batch: Batch) -> BatchOutcome:
        """Return the outcome of the next batch; none may be left out."""
        results = self._results(batch)
        self._unfinished = results if batch.goes_on else {}
        done = {} if batch.goes_on else results
        rejects = [*batch.rejects, *(result.reject for result in done.values() if result.reject is not None)]
        kept = {object_id: result for object_id, result in done.items() if result.reject is None}
        stale = {one: records for one, records in batch.comparison.stale_chunks.items() if one in kept}
        loaded = {one: result.loaded(has_stale_chunks=one in stale) for one, result in kept.items()}
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
            loaded=loaded,
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


def _counted(loaded: Mapping[str, Loaded]) -> Counter[str]:
    """Return the number of items by the name of their count."""
    names = ("inserted" if one.inserted else "unchanged" if one.unchanged else "updated" for one in loaded.values())
    return Counter(names)
