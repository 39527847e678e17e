"""One attempt at a task: joins the stages, commits their batches, and records the end of the attempt.

For every batch, in this order: read, compare, embed, write, append rejects, save the checkpoint. The journal may lag
behind the collection but never leads it, and repeating a batch changes nothing, so a crash at any step is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace

from upsert_cli.errors import Canceled, Interrupted, Refusal, SourceUnreadable, TargetInUse, UpsertCliError
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.limits import limit_reached
from upsert_cli.load.commit import Committer
from upsert_cli.load.load_context import LoadContext, Observer
from upsert_cli.load.orphans import delete_orphans, list_orphans
from upsert_cli.load.request import IfRunning, OpenedTask
from upsert_cli.load.resources import Resources
from upsert_cli.pipeline.batch import BatchOutcome
from upsert_cli.pipeline.prefetch import StageStopped, in_thread
from upsert_cli.pipeline.stages import Stages
from upsert_cli.store.process import StoreProcess

UnitLoader = Callable[[Committer, Resources, int], None]
"""Loads the units of a task that have no receipt, by several workers; takes the number of records before the load."""


def run_task(claim: Claim, *, observer: Observer, load_in_units: UnitLoader, wait_until: float) -> Task:
    """Run a task from its checkpoint to its end, and return it in its final state.

    Args:
        claim: The right to run the task, which is pending.
        observer: Shows the progress.
        load_in_units: Loads a task whose engine is a cluster.
        wait_until: Monotonic seconds until which to wait for another task that has the target's folder.

    Raises:
        Interrupted: A signal stopped the task. Its written batches are committed, and a queued task is pending again
            unless it was canceled.
        Canceled: Another process canceled the task.
        UpsertCliError: The task failed or was refused, as its record says, too.
    """
    task = replace(claim.begin(), running=True)
    context = LoadContext(claim, task, observer)
    with context.signals():
        attempt = _Attempt(claim, task, context)
        try:
            observer.started(task)
            attempt.load(load_in_units, wait_until=wait_until)
            task = attempt.finish(TaskStatus.DONE, None)
        except BaseException as error:
            reported = attempt.error_to_report(error)
            attempt.finish_after(reported)
            if reported is error:
                raise
            raise reported from error
        if isinstance(context.reason, Interrupted):
            # The signal came too late to stop the load, but its sender wants this process to die by it.
            raise Interrupted(task_id=task.id, signal_number=context.reason.signal_number, done=True)
    return task


def run_opened(
    opened: OpenedTask,
    claim: Claim,
    *,
    observer: Observer,
    load_in_units: UnitLoader,
    if_running: IfRunning = "refuse",
    wait_until: float = 0.0,
) -> OpenedTask:
    """Run a task that was opened with a claim, and return it at its end; see `run_task` about the errors.

    Args:
        opened: The task.
        claim: The claim of `opened`, which the caller releases.
        observer: Shows the progress.
        load_in_units: Loads a task whose engine is a cluster.
        if_running: The reaction if another task has the target's folder; with `skip`, a new task is withdrawn, and no
            error is raised.
        wait_until: Monotonic seconds until which to wait for that other task.
    """
    until = wait_until if if_running == "wait" else 0.0
    try:
        task = run_task(claim, observer=observer, load_in_units=load_in_units, wait_until=until)
    except TargetInUse as error:
        if if_running != "skip":
            raise
        # Another process took the folder a moment after it was found free.
        if opened.created:
            claim.withdraw()
        left = None if opened.created else claim.task()
        return replace(opened, task=left, skipped=str(error))
    return replace(opened, task=task, ran=True)


class _Attempt:
    """One attempt at a task; the main thread commits the batches that the stages yield."""

    def __init__(self, claim: Claim, task: Task, context: LoadContext) -> None:
        self._claim = claim
        self._context = context
        self._options = task.options
        self._committer = Committer(claim, task, context)
        self._progress = context.progress
        self._resources = Resources(task, leases=claim.leases, context=context)
        self._search_error: SourceUnreadable | None = None

    def load(self, load_in_units: UnitLoader, *, wait_until: float) -> None:
        """Load everything after the checkpoint."""
        committer, resources = self._committer, self._resources
        resources.check_unchanged()
        # Before the store starts, since the model may not suit the options; in a thread, since a fetch takes minutes.
        in_thread(lambda: resources.recipe, wait=self._context.check)
        with self._progress.busy("opening"):
            store = resources.start_store(rows=committer.left(), wait_until=wait_until)
        with store:
            if self._options.engine == "local" or committer.is_retry:  # a retry has too few rows for a cluster
                self._load_batches(store)
            else:
                load_in_units(committer, resources, self._open(store))
            if self._search_error is not None:
                raise self._search_error
            if self._options.delete_missing:
                delete_orphans(committer, resources, store)
            self._progress.stage = "flushing"
            with self._progress.busy("flushing"), self._context.writing():
                store.close()
        committer.warn_of_ignored()
        committer.check_failures(least_rows=0)
        resources.check_read()
        committer.check_complete()

    def _load_batches(self, store: StoreProcess) -> None:
        """Load rows in this process, in batches."""
        committer, resources = self._committer, self._resources
        rows = committer.rows_left(resources.rows)
        with self._progress.busy("opening"):
            is_empty = store.is_empty()
        stages = Stages(self._options, self._context, resources.loader, wait=lambda: self._wait(stages))
        read = stages.read_ahead(
            rows,
            resources.recipe,
            rejected=committer.rejects_to_retry if committer.is_retry else None,
            loads=is_empty or self._options.force,
        )
        with ExitStack() as stack:
            try:
                self._open(store)
                stack.enter_context(committer.open_rejects())
                helpers = self._options.writers - 1 if resources.location.is_shared else 0
                stores = [store, *(stack.enter_context(store.helper()) for _ in range(helpers))]
            except BaseException:
                read.close()  # the next stage, which would close it, has not begun
                raise
            outcomes = stack.enter_context(closing(stages.run(read, stores)))
            try:
                self._commit(outcomes, stores)
            except BaseException:
                for each in stores:
                    each.abandon()  # without waiting for the write in flight
                raise

    def _commit(self, outcomes: Iterable[BatchOutcome], stores: Sequence[StoreProcess]) -> None:
        """Commit each batch after the stores have acknowledged it."""
        committer = self._committer
        try:
            for outcome in outcomes:
                committer.commit(outcome, after=outcome.after)
                self._progress.seconds |= _busy_seconds(stores)
                self._context.show_now()
                if not committer.is_retry:  # a retry begins with all failures of the attempt before
                    committer.check_failures()
        except StageStopped:
            self._context.stop_if_wanted()
            raise

    def _wait(self, stages: Stages) -> None:
        """Stop the stages if the task has to stop; their batches in flight are still committed."""
        self._context.check_last_write()
        if self._context.has_to_stop:
            stages.stopping.set()

    def _open(self, store: StoreProcess) -> int:
        """Wait until the collection is open, list the records to delete, and return the number of all records."""
        with self._progress.busy("opening"):
            opened = store.opened()
        if opened.created and self._committer.checkpoint.rows:
            store.drop()  # or the next attempt would find the new collection, and not miss the old records
            raise self._resources.collection_deleted(rows=self._committer.checkpoint.rows)
        if opened.upgrade is not None:
            self._context.warning(opened.upgrade)
        self._progress.is_model_unnamed = not opened.names_model
        for warning in opened.warnings:
            self._context.warning(warning)
        if self._options.delete_missing and not self._committer.has_list:
            self._progress.stage = "searching"
            with self._progress.busy("searching"):
                try:
                    list_orphans(self._committer, self._resources, store, is_empty=not opened.count)
                except SourceUnreadable as error:
                    self._search_error = error  # the rows before the break are loaded, and nothing is deleted
        self._progress.stage = "loading"
        return opened.count

    def finish(self, status: TaskStatus, detail: str | None, *, stopped_by: str | None = None) -> Task:
        """Write the end of the attempt into the task's record."""
        self._context.show_now(is_last=True)
        return self._committer.finish(status, detail=detail, stopped_by=stopped_by)

    def error_to_report(self, error: BaseException) -> BaseException:
        """Return the error that explains a failure, such as the signal that caused it."""
        if isinstance(self._context.reason, Interrupted):
            return self._context.reason
        if isinstance(error, Refusal) and self._committer.has_advanced:
            return UpsertCliError(
                message=f"after part of the rows: {error}; the written rows are committed, and "
                f"`upsert-cli restart {self._committer.task.id}` continues the load"
            )
        return limit_reached(error) or error

    def finish_after(self, error: BaseException) -> None:
        """Record an error as the end of the attempt; only warn if that fails, since the first error counts."""
        stopped_by = None
        match error:
            case Canceled():
                status = TaskStatus.CANCELED
            case Refusal():
                status = TaskStatus.REFUSED
            case Interrupted():
                stopped_by = error.signal_name
                status = TaskStatus.PENDING if error.queued else TaskStatus.FAILED  # another worker continues it
            case _:
                status = TaskStatus.FAILED
        is_known = isinstance(error, UpsertCliError)
        try:
            detail = str(error) if is_known else f"unexpected {type(error).__name__}: {error}"
            task = self.finish(status, detail, stopped_by=stopped_by)
        except UpsertCliError as also:
            self._context.warning(f"the end of the task could not be written down: {also}")
        else:
            if isinstance(error, Interrupted):
                error.queued = task.status is TaskStatus.PENDING  # not if the task was canceled at that moment


def _busy_seconds(stores: Sequence[StoreProcess]) -> dict[str, float]:
    """Return the seconds that all stores together spent in calls of each kind."""
    return {kind: sum(store.seconds[kind] for store in stores) for kind in stores[0].seconds}
