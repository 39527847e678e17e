"""A load by the workers of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from upsert_cli.cluster.ray_cluster import WorkerPlan, cluster
from upsert_cli.cluster.ray_workers import RayWorkers
from upsert_cli.cluster.scheduler import Scheduler
from upsert_cli.cluster.unit_load import UnitLoad
from upsert_cli.cluster.worker import Spec
from upsert_cli.context import RunContext
from upsert_cli.journal.receipts import Receipts
from upsert_cli.journal.task import Task
from upsert_cli.load.commit import Committer
from upsert_cli.load.observer import Observer
from upsert_cli.sources.source import Source
from upsert_cli.store.base import Target
from upsert_cli.store.locations import SECRET_VARIABLES


def load_on_ray(
    task: Task,
    target: Target,
    sources: Sequence[Source],
    committer: Committer,
    receipts: Receipts,
    *,
    context: RunContext,
    observer: Observer,
) -> None:
    """Load all units of a task that have no receipt; an early end kills all workers.

    Args:
        task: The task.
        target: The collection, which exists and fits the model.
        sources: Files that all workers see under the same path.
        committer: Commits of the task.
        receipts: Receipts of the units that are done.
        context: Checked in all waits; its progress counts the receipts.
        observer: Notified of rejects.

    Raises:
        UpsertCliError: There is no cluster, or a worker failed for a reason that belongs to no item.
    """
    options = task.options
    with ExitStack() as stack:

        def start_scheduler() -> Scheduler:
            own = " of its own" if options.ray_address == "local" else f" at {options.ray_address}"
            context.info(f"joining a Ray cluster{own}")
            with context.progress.busy("opening"):
                stack.enter_context(cluster(options.ray_address, wait=context.check))
                plan = WorkerPlan.fitting(
                    workers=options.workers, threads=options.threads, gpus=options.num_gpus_per_worker
                )
            context.info(f"loading by {plan.count} workers with {plan.threads} threads each")
            if plan.room < plan.count:
                rest = "the others" if plan.room else "all of them"
                context.warning(
                    f"the cluster has room for {plan.room} of {plan.count} workers; {rest} wait until it grows"
                )
            spec = Spec(
                task_id=task.id,
                target=target,
                model=task.model,
                options=replace(options, threads=plan.threads, verbose=False).as_json(),
                sources=tuple(source.as_json() for source in sources),
                secrets=tuple(name for name in SECRET_VARIABLES if os.environ.get(name)),
            )
            workers = stack.enter_context(RayWorkers(spec, threads=plan.threads, gpus=options.num_gpus_per_worker))
            return Scheduler(workers, count=plan.count, sources=sources, wait=context.check)

        load = UnitLoad(sources, committer, receipts, context=context, observer=observer)
        load.run(start_scheduler)
        if (warning := load.ignored.warning()) is not None:
            context.warning(warning)
