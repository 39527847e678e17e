"""Runs one task: joins the stages of the stream, writes the journal, honours signals and cancel.

For every batch, and in this order: read, compare, embed, write; then rejects, then the checkpoint. The journal may lag
behind the collection, never lead it, and repeating a batch changes nothing, so a crash anywhere is harmless.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial

from upsert_cli.context import Progress
from upsert_cli.documents.document import Recipe
from upsert_cli.embedding.models import Model
from upsert_cli.errors import Canceled, Interrupted, Refusal, SourceCutShort, StoppedMidway, UpsertCliError, WrongStatus
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task, TaskStatus, utc_now
from upsert_cli.limits import limit_reached
from upsert_cli.load.commit import Committer
from upsert_cli.load.delivery import Delivery
from upsert_cli.load.observer import Observer
from upsert_cli.load.orphans import OrphanDeletion
from upsert_cli.load.overlap import Overlap
from upsert_cli.load.resources import (
    find_model_patiently,
    place_of_task,
    recipe_of,
    sources_of,
    start_writer,
    target_of,
)
from upsert_cli.load.stages import Stages
from upsert_cli.load.stop import Stopping
from upsert_cli.load.timeline_recorder import TimelineRecorder
from upsert_cli.load.waiting import Lookout
from upsert_cli.load.write import delete_stale_chunks
from upsert_cli.sources.item import Position
from upsert_cli.store.base import Opened
from upsert_cli.store.process import StoreProcess


def run_task(journal: Journal, claim: Claim, task: Task, *, observer: Observer, wait_until: float = -math.inf) -> Task:
    """Runs a task from its checkpoint to its end and returns it as it is then.

    Args:
        journal: Where the task is kept.
        claim: The right to run it.
        task: A pending one.
        observer: Told how it goes.
        wait_until: Monotonic seconds at which waiting for another task that has the target's folder ends in a refusal.

    Raises:
        Interrupted: A signal stopped it; what was written is checkpointed, and a queued task is pending again.
        Canceled: Another process asked for it.
        UpsertCliError: It failed or was refused; the task's record says so as well.
    """
    task = _begun(journal, task)
    stopping = Stopping(task.id, queued=task.queued, cancel_requested=claim.cancel_requested, kill=observer.killed)
    with stopping.signals(), TimelineRecorder(observer, claim, task) as recording:
        attempt = _Attempt(journal, claim, task, recording, stopping, wait_until=wait_until)
        try:
            recording.started(task)
            attempt.run()
            task = attempt.finish(TaskStatus.DONE, None)
        except BaseException as error:
            reason = attempt.reason_of(error)
            attempt.finish_after(reason)
            if reason is error:
                raise
            raise reason from error
        if isinstance(stopping.reason, Interrupted):
            # It came too late to stop anything, but who sent it wants this process to die by it.
            raise Interrupted(task_id=task.id, signal_number=stopping.reason.signal_number, done=True)
    return task


def _begun(journal: Journal, task: Task) -> Task:
    """Sets a pending task to being processed.

    Raises:
        Canceled: It was canceled in this moment.
    """
    try:
        return journal.change(
            task.id,
            TaskStatus.PROCESSING,
            expect=(TaskStatus.PENDING,),
            started_at=utc_now(),
            detail=None,
            failed_items=(),
        )
    except WrongStatus as error:
        if error.status == TaskStatus.CANCELED:
            raise Canceled(task_id=task.id) from error
        raise


class _Attempt:
    """One attempt at a task, by the main thread: it writes what the stages bring, and looks around while it waits."""

    def __init__(
        self,
        journal: Journal,
        claim: Claim,
        task: Task,
        observer: Observer,
        stopping: Stopping,
        *,
        wait_until: float,
    ) -> None:
        self._journal = journal
        self._task = task
        self._claim = claim
        self._observer = observer
        self._stopping = stopping
        self._wait_until = wait_until
        self._options = task.options
        self._committer = Committer(claim, task)
        self._sources = sources_of(task)
        self._progress = Progress.at(
            self._committer.rows, total=self._committer.total(), counts=self._committer.checkpoint.counts
        )
        self._stages = Stages(self._options, self._progress)
        self._began = time.monotonic()
        self._is_shared = place_of_task(journal, task).is_shared
        self._lookout = Lookout(stopping, observer, self._progress, is_shared=self._is_shared)
        self._context = _LookoutContext(self._lookout, observer, self._progress)

    def run(self) -> None:
        """Loads everything from the checkpoint on."""
        only = self._committer.rows_to_retry()
        for source in self._sources:
            source.check_unchanged(task_id=self._task.id)
        model = find_model_patiently(self._task, self._options, report=self._observer.told, wait=self._lookout.wait)
        recipe = recipe_of(self._options, model)
        with self._progress.busy("opening"):
            writer = start_writer(
                self._journal,
                self._task,
                model,
                rows=self._committer.left(),
                verbose=self._options.verbose,
                wait_until=self._wait_until,
                report=self._observer.told,
                told=self._lookout.say,
                wait=self._lookout.wait,
            )
        with writer:
            if self._options.engine == "local" or only is not None:  # the few rows of a retry are for this process
                deletion = self._load(model, recipe, writer, only)
            else:
                opened, deletion = self._open(writer)
                self._load_in_units(model, is_empty=not opened.count)
            if deletion is not None:
                self._delete(deletion, writer)
            self._progress.stage = "flushing"
            with self._progress.busy("flushing"), self._lookout.writing():
                writer.close()
        if (warning := self._stages.ignored.warning()) is not None:
            self._observer.noted(warning)
        self._committer.check_failures(settled=0)
        self._check_sources()
        self._committer.check_complete()

    def _open(self, writer: StoreProcess) -> tuple[Opened, OrphanDeletion | None]:
        """Waits until the collection is open, and returns what is to be deleted of it in the end as well."""
        with self._progress.busy("opening"):
            opened = writer.opened()
        for warning in opened.warnings:
            self._observer.noted(warning)
        deletion = self._prepare_deletion(writer, is_empty=not opened.count)
        self._progress.stage = "loading"
        return opened, deletion

    def _load(
        self, model: Model, recipe: Recipe, writer: StoreProcess, only: Iterator[tuple[str, int]] | None
    ) -> OrphanDeletion | None:
        with self._progress.busy("opening"):
            leased = writer.leased()
        stream = self._stages.run(
            replace(
                self._options.rows(self._sources),
                start=Position.from_json(self._committer.checkpoint.position),
                only=only,
            ),
            rejected=self._committer.rejects_to_retry,
            model=model,
            recipe=recipe,
            writer=writer,
            leased=leased,
            wait=lambda: self._lookout.wait(delivery.commit),
        )
        with closing(stream), ExitStack() as stack:
            _, deletion = self._open(writer)
            self._stages.opened()
            writers = [writer, *self._helpers(writer, stack)]
            delivery = Delivery(
                overlap=stack.enter_context(
                    closing(Overlap(writers, embed=self._stages.embed, between=self._lookout.check))
                ),
                rejects=stack.enter_context(self._committer.open_rejects()),
                committer=self._committer,
                stages=self._stages,
                progress=self._progress,
                observer=self._observer,
                is_shared=self._is_shared,
                delete_stale_chunks=partial(delete_stale_chunks, writer=writer, between=self._stopping.check),
            )
            delivery.run(stream, wait=self._lookout.wait, pulse=self._lookout.pulse)
            for helper in writers[1:]:
                helper.close()
        return deletion

    def _load_in_units(self, model: Model, *, is_empty: bool) -> None:
        from upsert_cli.cluster.coordinator import load_on_ray

        with self._claim.receipts() as receipts:
            receipts.begin(is_empty=is_empty)
            load_on_ray(
                self._task,
                target_of(self._journal, self._task, model),
                self._sources,
                self._committer,
                receipts,
                progress=self._progress,
                observer=self._observer,
                wait=self._lookout.wait,
            )

    def _prepare_deletion(self, writer: StoreProcess, *, is_empty: bool) -> OrphanDeletion | None:
        """Finds out what is to be deleted, before anything is written."""
        if not self._options.delete_missing:
            return None
        self._progress.stage = "searching"
        deletion = OrphanDeletion(task=self._task, sources=self._sources)
        with self._progress.busy("searching"):
            deletion.prepare(self._committer, writer, is_empty=is_empty, context=self._context)
        return deletion

    def _delete(self, deletion: OrphanDeletion, writer: StoreProcess) -> None:
        for block in deletion.due(self._committer, context=self._context):
            self._progress.stage = "deleting"
            self._progress.counts = self._committer.checkpoint.counts
            self._observer.progressed(self._progress)
            with self._progress.busy("deleting"), self._lookout.writing():
                changed = writer.delete(block)
            self._committer.deleted(len(block), changed=len(changed))

    def finish(self, status: TaskStatus, detail: str | None, *, stopped_by: str | None = None) -> Task:
        """Writes how the attempt ended into the task's record."""
        busy = {name: round(spent, 3) for name, spent in sorted(self._progress.seconds.items())}
        total = round(time.monotonic() - self._began, 3)
        return self._committer.finish(status, detail, seconds=busy | {"total": total}, stopped_by=stopped_by)

    def reason_of(self, error: BaseException) -> BaseException:
        """Returns what the user should hear: a wish to stop explains whatever fails because of it."""
        if isinstance(self._stopping.reason, Interrupted):
            return self._stopping.reason
        if isinstance(error, Refusal) and self._committer.has_advanced:
            return StoppedMidway(task_id=self._task.id, reason=str(error))
        return limit_reached(error) or error

    def finish_after(self, error: BaseException) -> None:
        """Writes why the attempt ended into the task's record; where that fails too, the first error is what counts."""
        status = TaskStatus.FAILED
        if isinstance(error, Canceled):
            status = TaskStatus.CANCELED
        elif isinstance(error, Refusal):
            status = TaskStatus.REFUSED
        elif isinstance(error, Interrupted) and error.queued:
            status = TaskStatus.PENDING  # for the next worker
        known = isinstance(error, UpsertCliError)
        try:
            detail = str(error) if known else f"unexpected {type(error).__name__}: {error}"
            stopped_by = signal.Signals(error.signal_number).name if isinstance(error, Interrupted) else None
            self.finish(status, detail, stopped_by=stopped_by)
        except UpsertCliError as also:
            self._observer.noted(f"the end of the task could not be written down: {also}")

    def _check_sources(self) -> None:
        """Looks whether the files are still what was read."""
        for source in self._sources:
            if (change := source.change()) is None:
                continue
            if source.is_shorter():
                raise SourceCutShort(name=source.name, how=change, task_id=self._task.id)
            self._observer.noted(f"{source.name} changed while it was being read ({change}); load it again")

    def _helpers(self, writer: StoreProcess, stack: ExitStack) -> list[StoreProcess]:
        """Starts the other writers of a load into a server; the first one has the lease, and made the collection."""
        count = self._options.writers - 1 if self._is_shared else 0
        return [stack.enter_context(writer.helper(told=self._lookout.say)) for _ in range(count)]


class _LookoutContext:
    """The context of an attempt."""

    def __init__(self, lookout: Lookout, observer: Observer, progress: Progress) -> None:
        self.progress = progress
        self.check = lookout.wait
        self.info = observer.told
        self.warning = observer.noted
