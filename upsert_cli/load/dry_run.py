"""A dry run: everything is read, checked and compared, and nothing is written."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

from upsert_cli.context import RunContext
from upsert_cli.counts import NOTHING_IGNORED, Counts
from upsert_cli.documents.document import Document
from upsert_cli.embedding.embedder import Effort, Embedder
from upsert_cli.errors import SourceUnreadable
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.rejects import FAILED_ITEMS
from upsert_cli.load.create import drafted
from upsert_cli.load.orphans import find_orphans
from upsert_cli.load.request import LoadRequest
from upsert_cli.load.resources import Resources, recipe_without_model, sources_of
from upsert_cli.pipeline.batch import Batch, Outcomes
from upsert_cli.pipeline.batches import read_batches
from upsert_cli.pipeline.compare import compare
from upsert_cli.pipeline.embed import embed, rows_to_embed
from upsert_cli.sources.item import START
from upsert_cli.store.base import Comparison, RecordRef, Verdict
from upsert_cli.store.locations import location_of
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
        task, options = draft.task, draft.task.options
        resources = Resources.find(journal, task, context=context) if compare else None
        sources = sources_of(task)
        recipe = recipe_without_model(task.model, options, sources) if resources is None else resources.recipe()
        batches = read_batches(options.rows(sources), recipe=recipe)
        result = DryRunResult(resources)
        with _open(resources, context=context) as store:
            if options.delete_missing and store is not None:
                try:
                    for block in find_orphans(task, sources, store, context=context, is_dry_run=True):
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
    for compared in compare(batches, store, average=average):
        yield compared
        if (fallback := compared.fallback()) is not None:
            yield from _compare(iter([fallback]), store, average=average)


@contextmanager
def _open(resources: Resources | None, *, context: RunContext) -> Iterator[StoreProcess | None]:
    """Open the collection for reading; yield None without resources, or if the collection does not exist."""
    if resources is None:
        yield None
        return
    task, target = resources.task, replace(resources.target(), as_found=True, reads_only=True)
    location = location_of(target)
    if task.options.keep_lists:
        location.require_lists()
    if location.describe() is None:
        yield None
        return
    with StoreProcess(target, task_id=task.id, context=context, location=location) as store:
        opened = store.opened()
        for warning in (*([opened.upgrade] if opened.upgrade else []), *opened.warnings):
            context.warning(warning)
        yield store


def _all_new(rows: int) -> Comparison:
    return Comparison(verdicts=[Verdict.NEW] * rows)


class DryRunResult:
    """The results that a load would have; the model is loaded when the first text needs it."""

    def __init__(self, resources: Resources | None) -> None:
        """Begin with none; without resources, nothing is compared."""
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

        self.compared = resources is not None
        self.ignored = NOTHING_IGNORED
        self._resources = resources
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
        limit = self._resources.model.max_tokens if self._resources is not None else 0
        self.tokens += sum(min(length, limit) for length in lengths)
        truncated = sum(length > limit for length in lengths)
        outcome = self._outcomes.of(replace(batch, truncated=truncated))
        self.ignored += batch.ignored
        room = FAILED_ITEMS - len(self.rejects)
        self.rejects += outcome.rejects[:room]
        self.counts += outcome.counts

    def _lengths(self, batch: Batch) -> list[int]:
        """Count the tokens of each text to embed; the first texts are also embedded, to measure the speed."""
        if self._resources is None or not (rows := rows_to_embed(batch)):
            return []
        documents = tuple(batch.documents[row] for row in rows)
        if self._embedder is None:
            self._embedder = self._resources.load_model()
            effort = self._resources.task.options.effort
            self._token_seconds = _seconds_a_token(documents[:PROBE_ROWS], self._embedder, effort)
        return self._embedder.count([document.text for document in documents])


def _seconds_a_token(documents: tuple[Document, ...], embedder: Embedder, effort: Effort) -> float:
    """Embed some documents to measure the speed."""
    batch = Batch(number=0, documents=documents, read=0, after=START, comparison=_all_new(len(documents)))
    embedded = embed(iter([batch]), load=lambda: embedder, effort=effort, stopping=threading.Event())
    seconds = sum(each.embedding_seconds for each in embedded)
    lengths = embedder.count([document.text for document in documents])
    return seconds / max(1, sum(min(length, embedder.max_tokens) for length in lengths))
