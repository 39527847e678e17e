"""A load in units: Ray's workers load the units of a task's sources, and the journal gets a receipt for each.

A unit is done when its receipt is in the journal, after the store has acknowledged all its records. A restart loads the
units without a receipt. Only this process writes to the journal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial

from upsert_cli.cluster.ray_cluster import RayWorkers, cluster, plan_workers
from upsert_cli.cluster.scheduler import Scheduler
from upsert_cli.cluster.worker import Spec
from upsert_cli.errors import SourceUnreadable, UpsertCliError
from upsert_cli.journal.receipts import Receipt, Receipts
from upsert_cli.load.commit import Committer
from upsert_cli.load.resources import Resources
from upsert_cli.sources.rows import UNIT_ROWS, Unit, plan_units
from upsert_cli.sources.source import Source
from upsert_cli.store.address import secrets_in_environment


def load_on_ray(committer: Committer, resources: Resources, records: int) -> None:
    """Load all units of a task that have no receipt; an early end kills all workers.

    The collection exists, fits the model, and has some `records`. The context of `committer` is checked in all waits.

    Raises:
        SourceUnreadable: A source broke off; all rows before that are committed.
        UpsertCliError: There is no cluster, or a worker failed through no item's fault.
    """
    with Receipts.open_at(committer.files.receipts) as receipts, ExitStack() as stack:
        receipts.begin(is_empty=not records)
        start_scheduler = partial(_start_scheduler, committer, resources, stack)
        load_units(committer, receipts, resources.sources, start_scheduler=start_scheduler)


def _start_scheduler(committer: Committer, resources: Resources, stack: ExitStack) -> Scheduler:
    """Join the cluster and start the workers; `stack` kills them and leaves the cluster."""
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
    task = replace(task, options=replace(options, threads=threads, verbose=False))
    spec = Spec(task=task, origin=resources.origin, secrets=secrets_in_environment())
    workers = RayWorkers(spec, threads=threads, gpus=options.num_gpus_per_worker)
    stack.callback(workers.stop)
    return Scheduler(workers, count=count, sources=resources.sources, wait=context.check)


def load_units(
    committer: Committer, receipts: Receipts, sources: Sequence[Source], *, start_scheduler: Callable[[], Scheduler]
) -> None:
    """Load the units without a receipt, and repeat the last row of each id that several units loaded.

    The committer begins with the sum of all receipts. `start_scheduler` is called only if there is a unit to load.

    Raises:
        SourceUnreadable: A source broke off; all rows before that are committed.
        UpsertCliError: A worker met another error that is no item's fault.
    """
    breaks: list[SourceUnreadable] = []

    def without_receipt() -> Iterator[Unit]:
        try:
            yield from filter(None, map(receipts.left_of, plan_units(sources)))
        except SourceUnreadable as error:
            breaks.append(error)

    progress = committer.context.progress
    committer.restore(*receipts.total(), receipts.rejects())
    progress.continue_after(committer.rows, committer.checkpoint.counts)
    scheduler = cache(start_scheduler)
    with committer.open_rejects():
        for receipt in _load(without_receipt(), scheduler):
            if isinstance(receipt.error, SourceUnreadable):
                breaks.append(receipt.error)
            elif receipt.error is not None:
                raise receipt.error
            if receipt.error is None or receipt.counts.read:
                _commit(receipt, committer, receipts)
    progress.stage = "repeats"
    for receipt in _load(_repeats(receipts), scheduler):
        _check_repeat(receipt)
    # The commits were in the order in which units were done; a retry needs the rejects in the order of their rows.
    counts, converted = receipts.total()
    committer.restore(counts + receipts.correction(), converted, receipts.rejects())
    progress.counts = committer.checkpoint.counts
    if breaks:
        raise breaks[0]


def _load(units: Iterator[Unit], scheduler: Callable[[], Scheduler]) -> Iterator[Receipt]:
    """Yield the receipts of units; without any unit, no scheduler is started."""
    if (first := next(units, None)) is not None:
        yield from scheduler().run(itertools.chain([first], units))


def _commit(receipt: Receipt, committer: Committer, receipts: Receipts) -> None:
    """Save a receipt, then commit its rows."""
    receipts.add(receipt)
    committer.commit(receipt)
    progress = committer.context.progress
    for name, seconds in receipt.seconds.items():
        progress.add(name, seconds)
    progress.read += receipt.counts.read
    progress.embedding_passed += receipt.counts.read
    progress.embedded += receipt.embedded
    committer.check_failures()


def _repeats(receipts: Receipts) -> Iterator[Unit]:
    """Yield units of the last row of each id that several units loaded: it wins, whichever unit was written last."""
    for unit, repeated in itertools.groupby(receipts.repeated(), key=lambda found: found[0]):
        while rows := tuple(row for _, row in itertools.islice(repeated, UNIT_ROWS)):
            yield replace(unit, only=rows)


def _check_repeat(receipt: Receipt) -> None:
    """Check that the last rows of repeated ids, which are counted already, were written again."""
    if receipt.error is not None:
        raise receipt.error
    if receipt.rejects:
        reject = receipt.rejects[0]
        raise UpsertCliError(
            message=f"{reject['source']}:{reject['row']} is the last row of a repeated id and could not be written "
            f"once more, so that it wins: {reject['detail']}; fix the cause, then restart the task"
        )
