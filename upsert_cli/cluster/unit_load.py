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
from functools import cache
from operator import itemgetter

from upsert_cli.cluster.ray_cluster import RayWorkers, cluster, plan_workers
from upsert_cli.cluster.scheduler import Scheduler
from upsert_cli.cluster.worker import Spec
from upsert_cli.errors import SourceUnreadable, UpsertCliError
from upsert_cli.journal.receipts import Receipt, Receipts
from upsert_cli.load.commit import Committer
from upsert_cli.load.resources import Resources
from upsert_cli.sources.item import START
from upsert_cli.sources.rows import UNIT_ROWS, Unit, plan_units
from upsert_cli.store.address import SECRET_VARIABLES


def load_on_ray(committer: Committer, receipts: Receipts, resources: Resources) -> None:
    """Load all units of a task that have no receipt; an early end kills all workers.

    The collection exists and fits the model; the context of `committer` is checked in all waits.

    Raises:
        UpsertCliError: There is no cluster, or a worker failed for a reason that belongs to no item.
    """
    with ExitStack() as stack:
        load = UnitLoad(committer, receipts, resources)
        load.run(lambda: _start_scheduler(committer, resources, stack))


def _start_scheduler(committer: Committer, resources: Resources, stack: ExitStack) -> Scheduler:
    """Join the cluster and start workers; `stack` kills them and leaves the cluster."""
    task, options, context = resources.task, resources.task.options, committer.context
    own = " of its own" if options.ray_address == "local" else f" at {options.ray_address}"
    context.info(f"joining a Ray cluster{own}")
    with context.progress.busy("opening"):
        stack.enter_context(cluster(options.ray_address, wait=context.check))
        count, threads, room = plan_workers(options.workers, options.threads, gpus=options.num_gpus_per_worker)
    context.info(f"loading by {count} workers with {threads} threads each")
    if room < count:
        rest = "the others" if room else "all of them"
        context.warning(f"the cluster has room for {room} of {count} workers; {rest} wait until it grows")
    spec = Spec(
        task=replace(task, options=replace(options, threads=threads, verbose=False)),
        origin=resources.origin,
        secrets=tuple(name for name in SECRET_VARIABLES if os.environ.get(name)),
    )
    workers = RayWorkers(spec, threads=threads, gpus=options.num_gpus_per_worker)
    stack.callback(workers.stop)
    return Scheduler(workers, count=count, sources=resources.sources, wait=context.check)


class UnitLoad:
    """The load of a task in units."""

    def __init__(self, committer: Committer, receipts: Receipts, resources: Resources) -> None:
        """Read nothing yet; the receipts, which bring `committer` up to date, are counted in its context's progress."""
        self._sources = resources.sources
        self._committer = committer
        self._receipts = receipts
        self._broken: SourceUnreadable | None = None

    def run(self, start_scheduler: Callable[[], Scheduler]) -> None:
        """Load the units without a receipt; `start_scheduler` is called only if there is one.

        Raises:
            SourceUnreadable: A source broke off; every row before that is committed.
            UpsertCliError: A worker met another error that belongs to no item.
        """
        committer, receipts, progress = self._committer, self._receipts, self._committer.context.progress
        committer.restore(*receipts.total(), receipts.rejects())
        progress.continue_after(committer.rows, committer.checkpoint.counts)
        scheduler = cache(start_scheduler)
        with committer.open_rejects():
            for receipt in _load(self._without_receipt(), scheduler):
                self._commit(receipt)
        progress.stage = "repeats"
        for receipt in _load(self._repeats(), scheduler):
            _check_repeat(receipt)
        # So far in the order of their arrival; a retry needs the order of the rows.
        counts, converted = receipts.total()
        committer.restore(counts + receipts.correction(), converted, receipts.rejects())
        progress.counts = committer.checkpoint.counts
        if self._broken is not None:
            raise self._broken

    def _without_receipt(self) -> Iterator[Unit]:
        try:
            yield from filter(None, map(self._receipts.left_of, plan_units(self._sources)))
        except SourceUnreadable as error:
            self._broken = self._broken or error

    def _commit(self, done: Receipt) -> None:
        if isinstance(done.error, SourceUnreadable):
            self._broken = self._broken or done.error
            if not done.counts.read:
                return
        elif done.error is not None:
            raise done.error
        self._receipts.add(done)
        self._committer.commit(done, after=START)
        progress = self._committer.context.progress
        for name, seconds in done.seconds.items():
            progress.add(name, seconds)
        progress.read += done.counts.read
        progress.embedding_passed += done.counts.read
        progress.embedded += done.embedded
        self._committer.check_failures()

    def _repeats(self) -> Iterator[Unit]:
        """Yield the last row of each id that several units loaded, so that it wins whichever unit was written last."""
        for unit, places in itertools.groupby(self._receipts.repeated(), key=itemgetter(0)):
            while rows := tuple(row for _, row in itertools.islice(places, UNIT_ROWS)):
                yield replace(unit, only=rows)


def _load(units: Iterator[Unit], scheduler: Callable[[], Scheduler]) -> Iterator[Receipt]:
    """Yield the receipts of units; without any unit, no scheduler is started."""
    if (first := next(units, None)) is not None:
        yield from scheduler().run(itertools.chain([first], units))


def _check_repeat(done: Receipt) -> None:
    """Check that the last row of a repeated id, which is counted already, was written again."""
    if done.error is not None:
        raise done.error
    if done.rejects:
        record = done.rejects[0]
        raise UpsertCliError(
            message=f"{record['source']}:{record['row']} is the last row of a repeated id and could not be written "
            f"once more, so that it wins: {record['detail']}; fix the cause, then restart the task"
        )
