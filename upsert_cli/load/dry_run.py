"""A load that is rehearsed: everything is read, checked and compared, and nothing is written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Protocol

from upsert_cli import embedding
from upsert_cli.context import Unattended
from upsert_cli.counts import Counts
from upsert_cli.embedding.embedder import Embedder
from upsert_cli.embedding.models import Model
from upsert_cli.errors import SourceUnreadable
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.rejects import FAILED_ITEMS
from upsert_cli.journal.task import Task
from upsert_cli.load.create import drafted
from upsert_cli.load.orphans import OrphanDeletion, SearchableStore
from upsert_cli.load.request import LoadRequest
from upsert_cli.load.resources import location_of_task, model_of, recipe_of, sources_of, target_of
from upsert_cli.pipeline.batches import Batch, read_batches
from upsert_cli.pipeline.compare import ComparableStore, ComparedBatch, InFlight, compare
from upsert_cli.pipeline.embed import embed
from upsert_cli.pipeline.ignored import NOTHING_IGNORED
from upsert_cli.pipeline.outcomes import Outcomes
from upsert_cli.pipeline.pace import MAX_ROWS, Pace
from upsert_cli.store.base import Comparison, RecordRef, RecordRefPage, Verdict
from upsert_cli.store.process import StoreProcess

PROBE_ROWS = 64  # texts that are embedded to learn the speed; one to three seconds with the default model

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRunResult:
    """What a load would do."""

    counts: Counts
    """Without a comparison every good row counts as new; an id that comes again in a later batch counts again."""

    rejects: tuple[dict[str, Any], ...]
    """The first ones, in the shape of `failed_items`."""

    compared: bool

    to_delete: tuple[str, ...]
    """The ids of the first records that the load would delete; all of them are in the counts."""

    tokens: int
    """Tokens to embed, those beyond the model's limit left out."""

    embed_seconds: float | None
    """How long embedding them would take, by a probe; None without a comparison."""

    broken: SourceUnreadable | None
    """Why the load would fail after the rows that were counted; None: it would not."""


def dry_run_load(
    journal: Journal, request: LoadRequest, *, stdin: BinaryIO, compare: bool, report: Report, warn: Report
) -> DryRunResult:
    """Reads all items of a load and tells what would become of them.

    Args:
        journal: Where standard input is kept meanwhile; it gets no task.
        request: The load.
        stdin: Read to its end where a source is `-`.
        compare: Whether to ask the collection and the model; without, neither has to be there.
        report: Told what takes long.
        warn: Told what the load would warn of.

    Raises:
        Refusal: The load would be refused, for another model say.
        UpsertCliError: It would fail.
    """
    with drafted(journal, request, stdin) as draft:
        for note in draft.notes:
            report(note)
        options = draft.task.options
        model = None
        if compare:
            model = model_of(draft.task.model, options, context=Unattended(report))
        sources = sources_of(draft.task)
        batches = read_batches(
            options.rows(sources),
            recipe=options.recipe(identity="") if model is None else recipe_of(options, model),
            pace=Pace(MAX_ROWS),
        )
        tally = _DryRunTally(model, options)
        broken: SourceUnreadable | None = None
        with _collection_of(journal, draft.task, model, warn=warn) as collection:
            try:
                if options.delete_missing:
                    deletion = OrphanDeletion(task=draft.task, sources=sources, is_dry_run=True)
                    for block in deletion.find(collection, context=Unattended()):
                        tally.add_missing(block)
            except SourceUnreadable:
                tally.forget_missing()
            try:
                for plan in _compared(batches, collection, average=options.average):
                    tally.add(plan)
            except SourceUnreadable as error:
                broken = error
                tally.forget_missing()
    if (warning := tally.ignored.warning()) is not None:
        warn(warning)
    return tally.result(broken)


def _compared(batches: Iterator[Batch], collection: ComparableStore, *, average: bool) -> Iterator[ComparedBatch]:
    in_flight = InFlight()
    plans = compare(batches, collection, in_flight=in_flight, force=False, average=average, stopping=threading.Event())
    for plan in plans:
        in_flight.leave(plan.batch.number)
        yield plan
        instead = plan.batch.fallback(())
        if instead is not None:
            yield from _compared(iter([instead]), collection, average=average)


@contextmanager
def _collection_of(journal: Journal, task: Task, model: Model | None, *, warn: Report) -> Iterator[_DryRunBatch]:
    """Opens what a load would be compared with; a collection that is not there yet holds nothing."""
    if model is None or location_of_task(journal, task).describe() is None:
        yield _Empty()
        return
    target = replace(target_of(journal, task, model), as_found=True, reads_only=True)
    with StoreProcess.start(target, task_id=task.id, context=Unattended(warn)) as writer:
        for warning in writer.opened().warnings:
            warn(warning)
        yield writer
        writer.close()


class _DryRunBatch(ComparableStore, SearchableStore, Protocol):
    """What a rehearsal asks of a collection."""


class _Empty:
    """A collection without records."""

    def members(self, scope: str, *, start: int, rows: int) -> RecordRefPage:  # noqa: ARG002
        return RecordRefPage(rows=0, members=[])

    def compare(self, ids: list[str], hashes: list[str], keys: list[tuple[str, ...]]) -> Comparison:  # noqa: ARG002
        return Comparison(verdicts=[Verdict.NEW] * len(ids), stale_keys=[()] * len(ids))

    def find_stale_chunks(self, chunks: Mapping[str, int], *, average: bool) -> dict[str, list[RecordRef]]:  # noqa: ARG002
        return {}


class _DryRunTally:
    """What was seen so far, and the model once a text needs it."""

    def __init__(self, model: Model | None, options: LoadOptions) -> None:
        self._model = model
        self._options = options
        self._embedder: Embedder | None = None
        self._outcomes = Outcomes()
        self._counts = Counts()
        self._rejects: list[dict[str, Any]] = []
        self._missing: list[str] = []
        self.ignored = NOTHING_IGNORED
        self._tokens = 0
        self._token_seconds = 0.0

    def add_missing(self, members: Sequence[RecordRef]) -> None:
        self._counts += Counts(deleted=len(members))
        self._missing += [member.id for member in members[: FAILED_ITEMS - len(self._missing)]]

    def forget_missing(self) -> None:
        """Forgets what is missing: a load whose source breaks off deletes nothing."""
        self._counts = replace(self._counts, deleted=0)
        self._missing.clear()

    def add(self, plan: ComparedBatch) -> None:
        lengths = self._lengths(plan)
        limit = self._model.max_tokens if self._model is not None else 0
        self._tokens += sum(min(length, limit) for length in lengths)
        truncated = sum(length > limit for length in lengths)
        outcome = self._outcomes.of(plan.batch, plan.comparison, truncated=truncated)
        self.ignored += plan.batch.ignored
        room = FAILED_ITEMS - len(self._rejects)
        self._rejects += [reject.as_json() for reject in outcome.rejects[:room]]
        self._counts += outcome.counts

    def _lengths(self, plan: ComparedBatch) -> list[int]:
        """Counts the tokens of the texts that would be embedded; the first of them also tell the speed."""
        changed = (
            row for row, verdict in enumerate(plan.comparison.verdicts) if verdict in (Verdict.NEW, Verdict.TEXT)
        )
        documents = plan.batch.documents
        rows = [row for row in changed if documents[row].vector is None and not documents[row].is_average]
        if self._model is None or not rows:
            return []
        texts = [plan.batch.documents[row].text for row in rows]
        if self._embedder is not None:
            return self._embedder.count(texts)
        model = self._model
        embedder = self._embedder = embedding.load(model, device=self._options.device)
        lengths = embedder.count(texts)
        probed = sum(min(length, model.max_tokens) for length in lengths[:PROBE_ROWS])
        self._token_seconds = self._probe(embedder, plan, rows[:PROBE_ROWS]) / max(1, probed)
        return lengths

    def _probe(self, embedder: Embedder, plan: ComparedBatch, rows: list[int]) -> float:
        """Embeds a few texts, and returns how many seconds that took."""
        documents = tuple(plan.batch.documents[row] for row in rows)
        comparison = Comparison(verdicts=[Verdict.NEW] * len(rows), stale_keys=[()] * len(rows))
        probe = ComparedBatch(batch=replace(plan.batch, documents=documents), comparison=comparison)
        embedded = embed(
            iter([probe]),
            load=lambda: embedder,
            effort=self._options.effort,
            stopping=threading.Event(),
        )
        return sum(one.seconds for one in embedded)

    def result(self, broken: SourceUnreadable | None) -> DryRunResult:
        spoilt = self._counts.failed > 0  # then the load deletes nothing
        return DryRunResult(
            counts=replace(self._counts, deleted=0) if spoilt else self._counts,
            to_delete=() if spoilt else tuple(self._missing),
            rejects=tuple(self._rejects),
            compared=self._model is not None,
            tokens=self._tokens,
            embed_seconds=None if self._model is None else self._tokens * self._token_seconds,
            broken=broken,
        )
