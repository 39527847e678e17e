"""Queued tasks -> their ends: a worker takes what `run --enqueue` left, the oldest first, beside other workers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from upsert_cli.errors import Interrupted, RunnersDied, TaskNotFound, TaskRunning, UpsertCliError
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.load.observer import Observer
from upsert_cli.load.options import exit_code
from upsert_cli.load.resources import place_of_task
from upsert_cli.load.run import run_task
from upsert_cli.load.stop import EndedBySignal

BLOCKED_SECONDS = 0.5  # seconds between two looks while other processes have the folders of all tasks that are left
DEATHS = 5  # runners that may die of a task one after the other without a row of progress; then it fails


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueResult:
    """How a task of the queue ended."""

    task: Task
    error: UpsertCliError | None
    """What ended it, if it is not done."""

    @property
    def exit_code(self) -> int:
        """The exit code that stands for it."""
        return exit_code(self.task)


def run_queued(
    journal: Journal,
    *,
    observe: Callable[[Task], Observer],
    report: Callable[[str], None],
    watch: float | None,
    max_tasks: int | None = None,
) -> Generator[QueueResult, None, None]:
    """Runs the queued tasks and yields the end of each, until nothing waits any more.

    Args:
        journal: Where the tasks are.
        observe: Returns who is told how a task goes.
        report: Told what is waited for.
        watch: Seconds between two looks for new tasks, for ever; None: end when there are none.
        max_tasks: How many to run at most; None: all.

    Raises:
        Interrupted: A signal came; the task that was being run is pending again.
        Ended: A signal came between two tasks.
        UpsertCliError: The journal cannot be written any more.
    """
    ended = 0
    while max_tasks is None or ended < max_tasks:
        try:
            taken = _next_task(journal, report=report, watch=watch)
        except EndedBySignal as error:
            raise EndedBySignal(error.number, f"while no task was run, after {ended:,}") from error
        if taken is None:
            return
        task, claim = taken
        with claim:
            outcome = _run(journal, claim, task, observe)
        yield outcome
        ended += 1


def _next_task(journal: Journal, *, report: Callable[[str], None], watch: float | None) -> tuple[Task, Claim] | None:
    """Waits for a task to run, and claims it; None where there is none and none is waited for."""
    told = False
    while True:
        blocked: str | None = None
        for task in journal.waiting():
            if (why := _in_use(journal, task)) is not None:
                blocked = blocked or f"task {task.id} waits: {why}"
            elif (claim := _claimed(journal, task)) is not None:
                return journal.find(task.id), claim
        if blocked is None and watch is None:
            return None
        if blocked is not None and not told:
            report(blocked)
            told = True
        time.sleep(watch or BLOCKED_SECONDS if blocked is None else BLOCKED_SECONDS)


def _in_use(journal: Journal, task: Task) -> str | None:
    """Return who has the place that a task loads into; the last write of a runner that died is waited for later."""
    try:
        place = place_of_task(journal, task)
    except UpsertCliError:
        return None  # such as a token that is missing: running the task says so, and ends it
    holder = place.holder()
    return None if holder is None or holder.task_id == task.id or holder.is_orphan() else str(place.in_use(holder))


def _claimed(journal: Journal, task: Task) -> Claim | None:
    """Claims a task and makes it pending, unless others were faster."""
    try:
        claim = journal.claim(task.id)
    except (TaskNotFound, TaskRunning):
        return None
    try:
        task = journal.find(task.id)  # as it is now that nobody else can run it
        if task.queued and task.status is TaskStatus.PROCESSING:
            journal.change(task.id, TaskStatus.PENDING, expect=(TaskStatus.PROCESSING,), detail=None)
            return claim
        if task.queued and task.status is TaskStatus.PENDING:
            return claim
    except BaseException:
        claim.release()
        raise
    claim.release()
    return None


def _run(journal: Journal, claim: Claim, task: Task, observe: Callable[[Task], Observer]) -> QueueResult:
    observer = observe(task)
    try:
        if (deaths := _deaths_in_vain(task)) >= DEATHS:
            error = RunnersDied(task_id=task.id, deaths=deaths)
            task = journal.change(task.id, TaskStatus.FAILED, expect=(TaskStatus.PENDING,), detail=str(error))
            return QueueResult(task=task, error=error)
        return QueueResult(task=run_task(journal, claim, task, observer=observer, wait_until=math.inf), error=None)
    except Interrupted:
        raise
    except UpsertCliError as error:
        task = journal.find(task.id)
        if not task.status.is_final:  # the journal could not be written, and would not be for the next task either
            raise
        return QueueResult(task=task, error=error)


def _deaths_in_vain(task: Task) -> int:
    deaths = 0
    for attempt in reversed(task.earlier):
        if attempt.status != TaskStatus.PROCESSING or attempt.counts.read != task.counts.read:
            break
        deaths += 1
    return deaths
