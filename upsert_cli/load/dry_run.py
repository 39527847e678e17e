"""A dry run: everything is read, checked and compared, and nothing is written."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from upsert_cli.context import RunContext
from upsert_cli.counts import Counts
from upsert_cli.embedding.embedder import Embedder
from upsert_cli.embedding.identity import Model, OwnVectors
from upsert_cli.errors import SourceUnreadable
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.rejects import FAILED_ITEMS
from upsert_cli.journal.task import Task
from upsert_cli.load.create import drafted
from upsert_cli.load.orphans import OrphanDeletion
from upsert_cli.load.request import LoadRequest
from upsert_cli.load.resources import (
    load_embedder,
    location_of_task,
    recipe_of,
    recipe_without_model,
    sources_of,
    target_of,
    vectors_of,
)
from upsert_cli.pipeline.batch import NOTHING_IGNORED, Batch
from upsert_cli.pipeline.batches import MAX_ROWS, Pace, read_batches
from upsert_cli.pipeline.compare import InFlight, compare
from upsert_cli.pipeline.embed import WITH_VECTOR, embed
from upsert_cli.pipeline.outcomes import Outcomes
from upsert_cli.store.base import Comparison, RecordRef, Verdict
from upsert_cli.store.process import StoreProcess

PROBE_ROWS = 64  # texts that are embedded to learn the speed; one to three seconds with the default model


def dry_run_load(
    journal: Journal, request: LoadRequest, *, stdin: BinaryIO, compare: bool, context: RunContext
) -> DryRunResult:
    """Read all items of a load and return the results that it would have.

    Args:
        journal: Keeps standard input for a while and gets no task.
        request: The load.
        stdin: Read to its end where a source is `-`.
        compare: Use the collection and the model; otherwise neither has to exist.
        context: Reports long steps, and the warnings of the load.

    Raises:
        Refusal: The load would be refused, for example for another model.
        UpsertCliError: It would fail.
    """
    with drafted(journal, request, stdin) as draft:
        for note in draft.notes:
            context.info(note)
        options = draft.task.options
        model = vectors_of(journal, draft.task, context=context) if compare else None
        sources = sources_of(draft.task)
        batches = read_batches(
            options.rows(sources),
            recipe=recipe_without_model(draft.task.model, options, sources)
            if model is None
            else recipe_of(options, model),
            pace=Pace(MAX_ROWS),
        )
        result = DryRunResult(model, options)
        with _open(journal, draft.task, model, context=context) as store:
            if options.delete_missing and store is not None:
                deletion = OrphanDeletion(task=draft.task, sources=sources, is_dry_run=True)
                try:
                    for block in deletion.find(store, context=context):
                        result.add_missing(block)
                except SourceUnreadable:  # as reading the rows will tell
                    result.forget_missing()
            try:
                for batch in _compare(batches, store, average=options.average):
                    result.add(batch)
            except SourceUnreadable as error:
                result.broken = error
    if result.broken is not None or result.counts.failed:
        result.forget_missing()
    if (warning := result.ignored.warning()) is not None:
        context.warning(warning)
    return result


def _compare(batches: Iterator[Batch], store: StoreProcess | None, *, average: bool) -> Iterator[Batch]:
    """Yield batches and their fallbacks, compared with the collection; without one, every item is new."""
    if store is None:
        yield from (replace(batch, comparison=_all_new(len(batch.documents))) for batch in batches)
        return
    in_flight = InFlight()
    for compared in compare(
        batches, store, in_flight=in_flight, force=False, average=average, stopping=threading.Event()
    ):
        in_flight.leave(compared.number)
        yield compared
        if (fallback := compared.fallback()) is not None:
            yield from _compare(iter([fallback]), store, average=average)


@contextmanager
def _open(
    journal: Journal, task: Task, model: Model | OwnVectors | None, *, context: RunContext
) -> Iterator[StoreProcess | None]:
    """Open the collection for reading; yield None without a model, or if the collection does not exist."""
    if model is None:
        yield None
        return
    location = location_of_task(journal, task)
    if task.options.keep_lists:
        location.require_lists()
    if location.describe() is None:
        yield None
        return
    target = replace(target_of(journal, task, model), as_found=True, reads_only=True)
    with StoreProcess(target, task_id=task.id, context=context) as store:
        opened = store.opened()
        for warning in (*([opened.upgrade] if opened.upgrade else []), *opened.warnings):
            context.warning(warning)
        yield store


def _all_new(rows: int) -> Comparison:
    return Comparison(verdicts=[Verdict.NEW] * rows)


class DryRunResult:
    """The results that a load would have; the model is loaded when the first text needs it."""

    def __init__(self, model: Model | OwnVectors | None, options: LoadOptions) -> None:
        """Begin with none; without a model, nothing is compared."""
        self.counts = Counts()
        """Without a comparison every good row counts as new; an id that is repeated in a later batch counts again."""

        self.rejects: list[dict[str, Any]] = []
        """The first rejects, in the shape of `failed_items`."""

        self.to_delete: list[str] = []
        """The ids of the first records that the load would delete; all of them are in the counts."""

        self.tokens = 0
        """Tokens to embed, without those beyond the model's limit."""

        self.broken: SourceUnreadable | None = None
        """The error that the load would end with after the counted rows, if any."""

        self.compared = model is not None
        self.ignored = NOTHING_IGNORED
        self._model = model
        self._options = options
        self._embedder: Embedder | None = None
        self._outcomes = Outcomes()
        self._token_seconds = 0.0

    @property
    def embed_seconds(self) -> float | None:
        """Estimated seconds to embed the tokens, by a probe; None without a comparison."""
        return self.tokens * self._token_seconds if self.compared else None

    def add_missing(self, records: Sequence[RecordRef]) -> None:
        """Count records to delete."""
        self.counts += Counts(deleted=len(records))
        self.to_delete += [record.id for record in records[: FAILED_ITEMS - len(self.to_delete)]]

    def forget_missing(self) -> None:
        """Forget the records to delete: a load with rejects, or whose source breaks off, deletes nothing."""
        self.counts = replace(self.counts, deleted=0)
        self.to_delete.clear()

    def add(self, batch: Batch) -> None:
        """Count the rows of a compared batch."""
        lengths = self._lengths(batch)
        limit = self._model.max_tokens if self._model is not None else 0
        self.tokens += sum(min(length, limit) for length in lengths)
        truncated = sum(length > limit for length in lengths)
        outcome = self._outcomes.of(replace(batch, truncated=truncated))
        self.ignored += batch.ignored
        room = FAILED_ITEMS - len(self.rejects)
        self.rejects += [reject.as_json() for reject in outcome.rejects[:room]]
        self.counts += outcome.counts

    def _lengths(self, batch: Batch) -> list[int]:
        """Count the tokens of each text to embed; the first texts are embedded to measure the speed."""
        if self._model is None:
            return []
        documents = [
            document
            for document, verdict in zip(batch.documents, batch.comparison.verdicts, strict=True)
            if verdict in WITH_VECTOR
            and document.vector is None
            and not document.is_average
            and document.item.object_id not in batch.failed
        ]
        if not documents:
            return []
        texts = [document.text for document in documents]
        if self._embedder is not None:
            return self._embedder.count(texts)
        embedder = self._embedder = load_embedder(self._model, self._options)
        lengths = embedder.count(texts)
        probed = sum(min(length, self._model.max_tokens) for length in lengths[:PROBE_ROWS])
        probe = tuple(documents[:PROBE_ROWS])
        batch = replace(batch, documents=probe, comparison=_all_new(len(probe)))
        self._token_seconds = self._embed_seconds(embedder, batch) / max(1, probed)
        return lengths

    def _embed_seconds(self, embedder: Embedder, batch: Batch) -> float:
        """Embed a batch and return how long that took."""
        embedded = embed(iter([batch]), load=lambda: embedder, effort=self._options.effort, stopping=threading.Event())
        return sum(one.embedding_seconds for one in embedded)
