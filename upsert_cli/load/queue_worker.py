"""The worker of the queue: runs the tasks of `run --enqueue`, the oldest first, next to any number of workers."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack, suppress

from upsert_cli.context import RunContext
from upsert_cli.errors import (
    SOME_REJECTED,
    Canceled,
    Interrupted,
    Refusal,
    TargetInUse,
    TaskNotFound,
    TaskRunning,
    UpsertCliError,
)
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.limits import require_resources
from upsert_cli.load.load_context import Observer
from upsert_cli.load.renames import complete_renames
from upsert_cli.load.resources import Resources
from upsert_cli.load.run import UnitLoader, run_task
from upsert_cli.signals import EndedBySignal

BLOCKED_SECONDS = 0.5  # seconds between two searches while the targets of all waiting tasks are in use
GRAVITY = (UpsertCliError.exit_code, Refusal.exit_code, Canceled.exit_code, SOME_REJECTED, 0)
"""The exit codes of tasks, the gravest first; the code of a signal, which ends the worker, is graver."""

MAX_DEATHS = 5  # workers that may die one after the other without progress before their task fails


def worst_exit_code(codes: Iterable[int]) -> int:
    """Return the exit code that stands for several tasks."""
    return min(codes, key=GRAVITY.index, default=0)


def claim_queued(
    journal: Journal, *, watch: float | None, max_tasks: int | None = None, context: RunContext
) -> Generator[tuple[Task, Claim], None, None]:
    """Yield each queued task with its claim until no task waits; each claim is released before the next task.

    With `watch`, wait for new tasks forever, and look for them every `watch` seconds.

    Raises:
        EndedBySignal: A signal arrived between two tasks.
        UpsertCliError: This process may not use the resources that a load needs.
    """
    require_resources()
    ended = 0
    while max_tasks is None or ended < max_tasks:
        try:
            found = _next_task(journal, watch=watch, context=context)
        except EndedBySignal as error:
            tasks = f"{ended:,} task{'s' * (ended != 1)}"
            raise EndedBySignal(error.number, f"while no task was running, after {tasks}") from error
        if found is None:
            return
        task, claim = found
        with claim:
            yield task, claim
        ended += 1


def run_queued(
    journal: Journal, claim: Claim, task: Task, *, observer: Observer, load_in_units: UnitLoader
) -> tuple[Task, UpsertCliError | None]:
    """Run a task of `claim_queued`, unless too many workers died of it; return the ended task, and its error if any.

    Raises:
        Interrupted: A signal arrived; the task is pending again, unless it was canceled.
        UpsertCliError: The journal cannot be written any more.
    """
    try:
        if (deaths := _deaths_without_progress(task)) >= MAX_DEATHS:
            error = UpsertCliError(
                message=f"{deaths} workers died while they ran task {task.id}, and no row more was loaded, so it is "
                f"not tried again; `upsert-cli restart {task.id} -v` shows what happens (is there enough memory?)"
            )
            task = journal.change(task.id, TaskStatus.FAILED, expect=(TaskStatus.PENDING,), detail=str(error))
            return task, error
        task = run_task(claim, observer=observer, load_in_units=load_in_units, wait_until=math.inf)
        return task, None
    except Interrupted:
        raise
    except UpsertCliError as error:
        task = journal.find(task.id)
        if not task.status.is_final:  # the journal cannot be written, which would end the next task, too
            raise
        return task, error


def _next_task(journal: Journal, *, watch: float | None, context: RunContext) -> tuple[Task, Claim] | None:
    """Wait for a task that can be run, and claim it; return None if no task waits and `watch` is None."""
    is_reported = False
    while True:
        blocked: str | None = None
        for task in journal.waiting():
            if (error := _in_use(journal, task)) is not None:
                blocked = blocked or f"task {task.id} waits: {error}"
            elif (claim := _claim(journal, task)) is not None:
                return claim.task(), claim
        if blocked is not None and not is_reported:
            context.info(blocked)
            is_reported = True
        if blocked is not None:
            time.sleep(BLOCKED_SECONDS)
        elif watch is not None:
            time.sleep(watch)
        else:
            return None


def _in_use(journal: Journal, task: Task) -> TargetInUse | None:
    """Return the error if another process holds the task's target."""
    try:
        complete_renames(journal, task.chroma)
        return Resources(task, leases=journal.layout.servers).in_use()
    except UpsertCliError:
        return None  # running the task reports the error, such as a missing token


def _claim(journal: Journal, task: Task) -> Claim | None:
    """Claim a task and make it pending; return None if another process was faster."""
    with suppress(TaskNotFound, TaskRunning), ExitStack() as held:
        claim = held.enter_context(Claim.take(journal, task.id))
        task = claim.taken_over()  # read again, now that no other process can run the task
        if task.queued and task.status is TaskStatus.PROCESSING:
            task = claim.set_back(heeds_cancel=True)
        if task.queued and task.status is TaskStatus.PENDING:
            held.pop_all()
            return claim
    return None


def _deaths_without_progress(task: Task) -> int:
    """Return the number of the last attempts whose runner died before another row was read."""
    deaths = 0
    for attempt in reversed(task.earlier):
        if attempt.status != TaskStatus.PROCESSING or attempt.counts.read != task.counts.read:
            break
        deaths += 1
    return deaths
