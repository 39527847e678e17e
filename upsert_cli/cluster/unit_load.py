"""A load in units: Ray's workers load the units of a task's sources, and their receipts are saved in the journal.

A unit is done when its receipt is in the journal, after the store has acknowledged all of its records. A restart loads
the units without a receipt. Only this process writes to the journal.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

from upsert_cli.cluster.ray_cluster import RayWorkers, WorkerPlan, cluster
from upsert_cli.cluster.scheduler import Scheduler
from upsert_cli.cluster.worker import Spec, UnitReceipt
from upsert_cli.context import RunContext
from upsert_cli.errors import SourceUnreadable, UpsertCliError
from upsert_cli.journal.receipts import Receipt, Receipts
from upsert_cli.journal.rejects import JsonLines
from upsert_cli.load.commit import Committer
from upsert_cli.load.resources import sources_of
from upsert_cli.pipeline.batch import NOTHING_IGNORED
from upsert_cli.sources.rows import UNIT_ROWS, Unit, plan_units
from upsert_cli.store.address import SECRET_VARIABLES
from upsert_cli.store.base import Target


def load_on_ray(committer: Committer, receipts: Receipts, target: Target, context: RunContext) -> None:
    """Load all units of a task that have no receipt; an early end kills all workers.

    Args:
        committer: Commits of the task.
        receipts: Receipts of the units that are done.
        target: The collection, which exists and fits the model.
        context: Checked in all waits; its progress counts the receipts.

    Raises:
        UpsertCliError: There is no cluster, or a worker failed for a reason that belongs to no item.
    """
    with ExitStack() as stack:
        load = UnitLoad(committer, receipts, context)
        load.run(lambda: _start_scheduler(committer, target, context, stack))


def _start_scheduler(committer: Committer, target: Target, context: RunContext, stack: ExitStack) -> Scheduler:
    """Join the cluster and start workers; `stack` kills them and leaves the cluster."""
    task, options = committer.task, committer.task.options
    own = " of its own" if options.ray_address == "local" else f" at {options.ray_address}"
    context.info(f"joining a Ray cluster{own}")
    with context.progress.busy("opening"):
        stack.enter_context(cluster(options.ray_address, wait=context.check))
        plan = WorkerPlan.fitting(options)
    context.info(f"loading by {plan.count} workers with {plan.threads} threads each")
    if plan.room < plan.count:
        rest = "the others" if plan.room else "all of them"
        context.warning(f"the cluster has room for {plan.room} of {plan.count} workers; {rest} wait until it grows")
    spec = Spec(
        task_id=task.id,
        target=target,
        options=replace(options, threads=plan.threads, verbose=False).as_json(),
        sources=task.inputs,
        secrets=tuple(name for name in SECRET_VARIABLES if os.environ.get(name)),
    )
    workers = stack.enter_context(RayWorkers(spec, threads=plan.threads, gpus=options.num_gpus_per_worker))
    return Scheduler(workers, count=plan.count, sources=sources_of(task), wait=context.check)


class UnitLoad:
    """The load of a task in units."""

    def __init__(self, committer: Committer, receipts: Receipts, context: RunContext) -> None:
        """Read nothing yet.

        Args:
            committer: Commits of the task, brought up to date by the receipts.
            receipts: Receipts of the units that are done.
            context: Its progress counts the receipts.
        """
        self._sources = sources_of(committer.task)
        self._committer = committer
        self._receipts = receipts
        self._context = context
        self._broken: SourceUnreadable | None = None
        self._ignored = NOTHING_IGNORED

    def run(self, start_scheduler: Callable[[], Scheduler]) -> None:
        """Load the units without a receipt.

        Args:
            start_scheduler: Returns the scheduler of the workers; called only if there is a unit to load.

        Raises:
            SourceUnreadable: A source broke off; every row before that is committed.
            UpsertCliError: A worker met another error that belongs to no item.
        """
        committer, receipts = self._committer, self._receipts
        committer.restore(*receipts.total(), receipts.rejects())
        progress = self._context.progress
        progress.continue_after(committer.rows, committer.checkpoint.counts)
        todo = self._without_receipt()
        first = next(todo, None)
        scheduler = None
        if first is not None:
            scheduler = start_scheduler()
            with committer.open_rejects() as rejects:
                for receipt in scheduler.run(itertools.chain([first], todo)):
                    self._commit(receipt, rejects)
        progress.stage = "repeats"
        repeats = self._repeats()
        first = next(repeats, None)
        if first is not None:
            for receipt in (scheduler or start_scheduler()).run(itertools.chain([first], repeats)):
                self._check_repeat(receipt)
        # So far in the order of their arrival; a retry needs the order of the rows.
        counts, converted = receipts.total()
        committer.restore(counts + receipts.correction(), converted, receipts.rejects())
        progress.counts = committer.checkpoint.counts
        if (warning := self._ignored.warning()) is not None:
            self._context.warning(warning)
        if self._broken is not None:
            raise self._broken

    def _without_receipt(self) -> Iterator[Unit]:
        try:
            for planned in plan_units(self._sources):
                unit: Unit | None = planned
                while unit is not None and (body := self._receipts.body(unit.id)) is not None:
                    unit = None if body["rest"] is None else Unit.from_json(body["rest"])
                if unit is not None:
                    yield unit
        except SourceUnreadable as error:
            self._broken = self._broken or error

    def _commit(self, done: UnitReceipt, rejects: JsonLines) -> None:
        if isinstance(done.error, SourceUnreadable):
            self._broken = self._broken or done.error
            if not done.counts.read:
                return
        elif done.error is not None:
            raise done.error
        unit = done.unit
        ended = unit if done.rest is None else replace(unit, end=done.rest.after)
        receipt = Receipt(
            unit=unit.id,
            source=unit.start.source,
            row=unit.after,
            body={"unit": ended.as_json(), "rest": None if done.rest is None else done.rest.as_json()},
            counts=done.counts,
            converted=done.converted,
            rejects=list(done.rejects),
            ids=done.ids,
        )
        self._ignored += done.ignored
        self._receipts.add(receipt)
        self._committer.commit_unit(receipt, rejects)
        self._count(done)
        if done.rejects:
            self._context.rejected(done.rejects)
        self._committer.check_failures()

    def _count(self, done: UnitReceipt) -> None:
        progress, counts = self._context.progress, done.counts
        for name, seconds in done.seconds.items():
            progress.add(name, seconds)
        progress.read += counts.read
        progress.embedding_passed += counts.read
        progress.committed += counts.read
        progress.embedded += done.embedded
        progress.written += counts.inserted + counts.updated
        progress.counts = self._committer.checkpoint.counts

    # -- repeated ids -----------------------------------------------------------------------------------------------

    def _repeats(self) -> Iterator[Unit]:
        """Yield the last row of each id that several units loaded, so that it wins whichever unit was written last."""
        for body, places in itertools.groupby(self._receipts.repeated(), key=lambda found: found[0]):
            unit = Unit.from_json(body["unit"])
            while rows := tuple(row for _, row in itertools.islice(places, UNIT_ROWS)):
                yield replace(unit, only=rows)

    def _check_repeat(self, done: UnitReceipt) -> None:
        if done.error is not None:
            raise done.error
        # The row is counted already; only the order of writing was open.
        if done.rejects:
            record = done.rejects[0]
            raise UpsertCliError(
                message=f"{record['source']}:{record['row']} is the last row of a repeated id and could not be written "
                f"once more, so that it wins: {record['detail']}; fix the cause, then restart the task"
            )
