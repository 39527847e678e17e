"""One attempt at a task: joins the stages, commits their batches, and records how the attempt ended.

For every batch, in this order: read, compare, embed, write, append rejects, save the checkpoint. The journal may lag
behind the collection but never leads it, and repeating a batch changes nothing, so a crash anywhere is harmless.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TypeAlias

from upsert_cli.context import Progress, RunContext
from upsert_cli.documents.recipe import Recipe
from upsert_cli.embedding.embedder import Embedder, Loader
from upsert_cli.embedding.identity import Model, OwnVectors
from upsert_cli.errors import Canceled, Interrupted, Refusal, UpsertCliError
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.receipts import Receipts
from upsert_cli.journal.rejects import JsonLines
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.limits import limit_reached
from upsert_cli.load.commit import Committer
from upsert_cli.load.inputs import check_read_inputs
from upsert_cli.load.load_context import LoadContext, Observer
from upsert_cli.load.orphans import OrphanDeletion
from upsert_cli.load.resources import (
    collection_deleted,
    find_vectors_in_thread,
    load_embedder,
    recipe_of,
    sources_of,
    start_store,
    target_of,
)
from upsert_cli.pipeline.batch import NOTHING_IGNORED, Batch
from upsert_cli.pipeline.batches import read_batches
from upsert_cli.pipeline.outcomes import BatchOutcome
from upsert_cli.pipeline.prefetch import StageStopped
from upsert_cli.pipeline.retry_rejects import superseded_by_later_rows
from upsert_cli.pipeline.stages import Stages
from upsert_cli.sources.item import Position
from upsert_cli.sources.rows import RowKey
from upsert_cli.store.address import is_server
from upsert_cli.store.base import Opened, Target
from upsert_cli.store.process import StoreProcess

UnitLoader: TypeAlias = Callable[[Committer, Receipts, Target, RunContext], None]
"""Loads all units of a task that have no receipt, by several workers."""


def run_task(
    journal: Journal,
    claim: Claim,
    *,
    observer: Observer,
    load_in_units: UnitLoader,
    wait_until: float = -math.inf,
) -> Task:
    """Run a task from its checkpoint to its end, and return it in its final state.

    Args:
        journal: Where the task is kept.
        claim: The right to run it; it is pending.
        observer: Shows the progress.
        load_in_units: Loads a task whose engine is a cluster.
        wait_until: Monotonic seconds at which waiting for another task that has the target's folder ends in a refusal.

    Raises:
        Interrupted: A signal stopped it; its written batches are committed, and a queued task is pending again.
        Canceled: Another process canceled it.
        UpsertCliError: It failed or was refused, which its record says too.
    """
    task = claim.begin()
    context = LoadContext(claim, task, observer)
    with context.signals():
        attempt = _Attempt(journal, claim, task, context, wait_until=wait_until)
        try:
            observer.started(task)
            attempt.load(load_in_units)
            task = attempt.finish(TaskStatus.DONE, None)
        except BaseException as error:
            reason = attempt.reason_of(error)
            attempt.finish_after(reason)
            if reason is error:
                raise
            raise reason from error
        if isinstance(context.reason, Interrupted):
            # The signal came too late to stop anything, but its sender wants this process to die by it.
            raise Interrupted(task_id=task.id, signal_number=context.reason.signal_number, done=True)
    return task


class _Attempt:
    """One attempt at a task; the main thread commits the batches that the stages yield."""

    def __init__(self, journal: Journal, claim: Claim, task: Task, context: LoadContext, *, wait_until: float) -> None:
        self._journal = journal
        self._task = task
        self._claim = claim
        self._context = context
        self._wait_until = wait_until
        self._options = task.options
        self._committer = Committer(claim, task)
        self._sources = sources_of(task)
        began = time.monotonic() - task.load_seconds
        self._progress = context.progress = Progress(total=self._committer.total(), began=began)
        self._progress.continue_after(self._committer.rows, self._committer.checkpoint.counts)
        self._ignored = NOTHING_IGNORED

    def load(self, load_in_units: UnitLoader) -> None:
        """Load everything after the checkpoint."""
        only = self._committer.rows_to_retry()
        for source in self._sources:
            source.check_unchanged(task_id=self._task.id)
        model = find_vectors_in_thread(self._journal, self._task, context=self._context)
        recipe = recipe_of(self._options, model)  # which may refuse the options, before a store starts
        with self._progress.busy("opening"):
            store = start_store(
                self._journal,
                self._task,
                model,
                rows=self._committer.left(),
                wait_until=self._wait_until,
                context=self._context,
            )
        with store:
            if self._options.engine == "local" or only is not None:  # the few rows of a retry are for this process
                deletion = self._load_batches(model, recipe, store, only)
            else:
                deletion = self._load_units(load_in_units, model, store)
            if deletion is not None:
                deletion.run(self._committer, store, context=self._context)
            self._progress.stage = "flushing"
            with self._progress.busy("flushing"), self._context.writing():
                store.close()
        if (warning := self._ignored.warning()) is not None:
            self._context.warning(warning)
        self._committer.check_failures(least_rows=0)
        check_read_inputs(self._sources, task_id=self._task.id, context=self._context)
        self._committer.check_complete()

    def _load_batches(
        self, model: Model | OwnVectors, recipe: Recipe, store: StoreProcess, only: Iterator[RowKey] | None
    ) -> OrphanDeletion | None:
        """Load batches in this process, and return the deletions that are to follow."""
        with self._progress.busy("opening"):
            is_empty = store.is_empty()
        loader = Loader(lambda: self._load_model(model))
        stages = Stages(self._options, self._context, load=loader.embedder, wait=lambda: self._wait(stages))
        batches = self._batches(recipe, stages, only)
        if is_empty or self._options.force:  # otherwise all rows may be unchanged, which needs no model
            batches = _begin_loading(batches, loader)
        read = stages.read_ahead(batches)
        with ExitStack() as stack:
            try:
                _, deletion = self._open(store)
                rejects = stack.enter_context(self._committer.open_rejects())
                count = self._options.writers - 1 if is_server(self._task.chroma) else 0
                stores = [store, *(stack.enter_context(store.helper()) for _ in range(count))]
            except BaseException:
                read.close()  # no other stage has it yet
                raise
            with closing(stages.run(read, stores)) as outcomes:
                try:
                    for outcome in outcomes:
                        self._commit(outcome, rejects)
                        self._progress.seconds |= _busy_seconds(stores)
                        self._context.show_now()
                        if not self._committer.is_retry:  # a retry begins with all failures that there were
                            self._committer.check_failures()
                except BaseException as error:
                    for each in stores:
                        each.abandon()  # a write in flight is not waited for
                    if isinstance(error, StageStopped):
                        self._context.stop_if_wanted()
                    raise
        return deletion

    def _batches(self, recipe: Recipe, stages: Stages, only: Iterator[RowKey] | None) -> Iterator[Batch]:
        rows = replace(
            self._options.rows(self._sources),
            start=Position.from_json(self._committer.checkpoint.position),
            only=only,
        )
        superseded = superseded_by_later_rows(rows, rejected=self._committer.rejects_to_retry, stopping=stages.stopping)
        return read_batches(rows, recipe=recipe, pace=stages.pace, superseded=None if only is None else superseded)

    def _load_model(self, model: Model | OwnVectors) -> Embedder:
        with self._progress.busy("loading"):
            return load_embedder(model, self._options)

    def _wait(self, stages: Stages) -> None:
        """Stop the stages if the task has to stop; their batches in flight are still committed."""
        self._context.check_last_write()
        if self._context.has_to_stop:
            stages.stopping.set()

    def _commit(self, outcome: BatchOutcome, rejects: JsonLines) -> None:
        records = self._committer.commit(outcome, rejects)
        progress, counts = self._progress, outcome.counts
        progress.written += counts.inserted + counts.updated
        progress.committed += counts.read
        progress.counts = self._committer.checkpoint.counts
        self._ignored += outcome.batch.ignored
        if records:
            self._context.rejected(records)

    def _load_units(
        self, load_in_units: UnitLoader, model: Model | OwnVectors, store: StoreProcess
    ) -> OrphanDeletion | None:
        """Load units by the workers of a cluster, and return the deletions that are to follow."""
        opened, deletion = self._open(store)
        with self._claim.receipts() as receipts:
            receipts.begin(is_empty=not opened.count)
            target = target_of(self._journal, self._task, model)
            load_in_units(self._committer, receipts, target, self._context)
        return deletion

    def _open(self, store: StoreProcess) -> tuple[Opened, OrphanDeletion | None]:
        """Wait until the collection is open, and find the records to delete before anything is written."""
        with self._progress.busy("opening"):
            opened = store.opened()
        if opened.created and self._committer.checkpoint.rows:
            store.drop()  # or the next attempt would find it, and continue after records that are gone
            raise collection_deleted(self._task, rows=self._committer.checkpoint.rows)
        if opened.upgrade is not None:
            self._context.warning(opened.upgrade)
        self._progress.is_model_unnamed = not opened.names_model
        for warning in opened.warnings:
            self._context.warning(warning)
        deletion = None
        if self._options.delete_missing:
            self._progress.stage = "searching"
            deletion = OrphanDeletion(task=self._task, sources=self._sources)
            with self._progress.busy("searching"):
                deletion.prepare(self._committer, store, is_empty=not opened.count, context=self._context)
        self._progress.stage = "loading"
        return opened, deletion

    def finish(self, status: TaskStatus, detail: str | None, *, stopped_by: str | None = None) -> Task:
        """Write the end of the attempt into the task's record."""
        self._context.show_now(is_last=True)
        return self._committer.finish(status, busy=self._progress.seconds, detail=detail, stopped_by=stopped_by)

    def reason_of(self, error: BaseException) -> BaseException:
        """Return the error to report: a wish to stop explains any failure that it causes."""
        if isinstance(self._context.reason, Interrupted):
            return self._context.reason
        if isinstance(error, Refusal) and self._committer.has_advanced:
            return UpsertCliError(
                message=f"after part of the rows: {error}; the written rows are committed, and "
                f"`upsert-cli restart {self._task.id}` continues the load"
            )
        return limit_reached(error) or error

    def finish_after(self, error: BaseException) -> None:
        """Write the reason for the end into the task's record; if that fails too, the first error counts."""
        stopped_by = None
        match error:
            case Canceled():
                status = TaskStatus.CANCELED
            case Refusal():
                status = TaskStatus.REFUSED
            case Interrupted():
                stopped_by = signal.Signals(error.signal_number).name
                status = TaskStatus.PENDING if error.queued else TaskStatus.FAILED  # pending for the next worker
            case _:
                status = TaskStatus.FAILED
        is_known = isinstance(error, UpsertCliError)
        try:
            detail = str(error) if is_known else f"unexpected {type(error).__name__}: {error}"
            self.finish(status, detail, stopped_by=stopped_by)
        except UpsertCliError as also:
            self._context.warning(f"the end of the task could not be written down: {also}")


def _begin_loading(batches: Iterator[Batch], loader: Loader) -> Iterator[Batch]:
    """Yield batches, and begin to load the model at the first one with a text to embed."""
    begun = False
    for batch in batches:
        if not begun and any(document.vector is None for document in batch.documents):
            loader.begin()
            begun = True
        yield batch


def _busy_seconds(stores: Sequence[StoreProcess]) -> dict[str, float]:
    """Return the seconds that all stores together spent in calls of each kind."""
    return {kind: sum(store.seconds[kind] for store in stores) for kind in stores[0].seconds}
