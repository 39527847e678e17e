"""A request, or the id of a task, becomes a task that is ready to run: created, resumed or restarted."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, BinaryIO

from upsert_cli.context import RunContext
from upsert_cli.errors import Refusal, TaskExists, TaskNotFound, TaskRunning, UsageFault
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.limits import require_resources
from upsert_cli.load.create import Draft, drafted
from upsert_cli.load.renames import complete_renames
from upsert_cli.load.request import IfRunning, LoadRequest, OpenedTask
from upsert_cli.load.resources import Resources
from upsert_cli.load.task_sources import read_again, refuse_other_load, signed_again
from upsert_cli.load.vectors import require_computable
from upsert_cli.sources.item import START, Position

_NOT_RESUMED = (TaskStatus.DONE, TaskStatus.CANCELED)  # the states that a request with the task's id leaves
WAIT_STEP = 0.5  # seconds between two attempts to claim a task that another process runs


def open_task(
    journal: Journal,
    request: LoadRequest,
    *,
    stdin: BinaryIO,
    if_running: IfRunning,
    wait_until: float,
    context: RunContext,
) -> OpenedTask:
    """Make sure that there is a task for a request, and claim it unless it is done.

    Args:
        journal: The journal.
        request: The load, with an id if the task may already exist.
        stdin: Read to its end if a source is `-`.
        if_running: The reaction if another process runs this task; `skip` also applies if one has the target's folder.
        wait_until: Monotonic seconds until which to wait for another process that runs this task.
        context: Checked in the wait; receives the messages about sources.

    Raises:
        UpsertCliError: This process may not use the resources that a load needs.
        Refusal: The id belongs to another load.
        TaskRunning: Another process runs the task.
        UsageFault: A source does not exist, or its first rows do not fit the options.
    """
    if not request.enqueue:
        require_resources()
    with drafted(journal, request, stdin) as draft:
        resources = Resources(draft.task, leases=journal.layout.servers)
        _ = resources.location  # checks the address and the credentials before there is a task
        if request.task_id is not None:
            complete_renames(journal, draft.task.chroma)
        while True:
            if request.task_id is not None and (existing := _find(journal, request.task_id)) is not None:
                refuse_other_load(existing, draft.task)
                return _resume(
                    journal, existing, draft.task, if_running=if_running, wait_until=wait_until, context=context
                )
            if if_running == "skip" and not request.enqueue and (error := resources.in_use()) is not None:
                return OpenedTask(task=None, skipped=str(error))
            if (opened := _create(draft, context)) is not None:
                return opened


def restart_task(
    journal: Journal,
    task_id: str,
    *,
    from_start: bool = False,
    failed_only: bool = False,
    max_failures: str | None = None,
    max_delete: str | None = None,
    enqueue: bool = False,
) -> OpenedTask:
    """Claim a task in any state and set it back to pending; the limits, if given, replace those of the task.

    Raises:
        TaskNotFound: No task has this id.
        TaskRunning: Another process runs the task.
        TargetInUse: Another task has the target's folder. This and the next errors leave the task unchanged.
        TargetBusy: Another program writes to the target's folder.
        Refusal: Another program has files of the folder open; a source has changed since the checkpoint; or, with
            `failed_only`, some rows were never read.
        UsageFault: A limit does not apply to the task.
        UpsertCliError: This process may not use the resources that a load needs.
    """
    if not enqueue:
        require_resources()
    complete_renames(journal, journal.find(task_id).chroma)
    with ExitStack() as held:
        claim = held.enter_context(Claim.take(journal, task_id))
        task = claim.task()
        wanted = replace(_with_limits(task, max_failures, max_delete), queued=enqueue)
        resources = Resources(wanted, leases=claim.leases)
        if not enqueue:
            require_computable(task.model, task.options)
            _require_target(resources)
        if failed_only and not task.counts.failed:
            _require_all_read(resources, claim)
            return OpenedTask(task=task, skipped=f"task {task_id} has no rejected items")
        # A restart overrides earlier cancels, but not one that arrives from here on.
        was_canceled = task.status is TaskStatus.CANCELED or task.cancel_requested
        _set_back(resources, claim, heeds_cancel=not was_canceled, from_start=from_start, failed_only=failed_only)
        return _ready(claim, held)


def _find(journal: Journal, task_id: str) -> Task | None:
    try:
        return journal.find(task_id)
    except TaskNotFound:
        return None


def _create(draft: Draft, context: RunContext) -> OpenedTask | None:
    """Create the task of a draft, and claim it unless it is queued; return None if another process was faster."""
    try:
        task = draft.create()
    except TaskExists:
        return None
    for note in draft.notes:
        context.info(note)
    if task.queued:
        return OpenedTask(task=task, created=True, queued=True)
    try:
        return OpenedTask(task=task, claim=Claim.take(draft.journal, task.id), created=True)
    except TaskRunning:
        if draft.request.task_id is None:
            raise
        return None  # another process asked for the same id, and runs the task


def _resume(
    journal: Journal,
    task: Task,
    draft: Task,
    *,
    if_running: IfRunning,
    wait_until: float,
    context: RunContext,
) -> OpenedTask:
    """Resume a task that is not done, unless another process runs it; `draft` is the same load."""
    if task.status in _NOT_RESUMED:
        return OpenedTask(task=task)
    if draft.queued and task.queued and task.status is TaskStatus.PENDING:
        return OpenedTask(task=task, queued=True)
    until = wait_until if if_running == "wait" else 0.0
    with ExitStack() as held:
        try:
            claim = held.enter_context(_await_claim(journal, task.id, wait_until=until, context=context))
        except TaskRunning:
            if if_running != "skip":
                raise
            now = journal.with_runner(journal.find(task.id))
            return OpenedTask(task=now, skipped=f"task {task.id} is being run by another process")
        task = claim.taken_over()  # read again, now that no other process can run it
        if task.status in _NOT_RESUMED:
            return OpenedTask(task=task)
        # The new options store the same records as the old ones, but may load them in another way.
        wanted = replace(task, inputs=signed_again(task, draft), options=draft.options, queued=draft.queued)
        resources = Resources(wanted, leases=claim.leases)
        skips = if_running == "skip" and not draft.queued
        if skips and (error := resources.in_use()) is not None:
            return OpenedTask(task=task, skipped=str(error))
        _set_back(resources, claim, heeds_cancel=True)
        return _ready(claim, held)


def _await_claim(journal: Journal, task_id: str, *, wait_until: float, context: RunContext) -> Claim:
    """Claim a task; if another process runs it, wait until a moment in monotonic seconds."""
    while True:
        try:
            return Claim.take(journal, task_id)
        except TaskRunning:
            if time.monotonic() >= wait_until:
                raise
        context.check()
        time.sleep(WAIT_STEP)


def _ready(claim: Claim, held: ExitStack) -> OpenedTask:
    """Return a task that was set back; its claim is released if the task is queued, or was canceled at that moment."""
    task = claim.task()
    if task.status is TaskStatus.CANCELED:
        return OpenedTask(task=task)
    if task.queued:
        return OpenedTask(task=task, queued=True)
    held.pop_all()
    return OpenedTask(task=task, claim=claim)


def _set_back(
    resources: Resources,
    claim: Claim,
    *,
    heeds_cancel: bool,
    from_start: bool = False,
    failed_only: bool = False,
) -> None:
    """Make a claimed task pending again: at its checkpoint, at the start, or for the rejected rows alone.

    The task of `resources` has the options, the inputs and the `queued` that the claimed task gets. With
    `heeds_cancel`, a task that is canceled at this moment stays canceled.
    """
    wanted, known = resources.task, claim.task()
    asked = {"options": wanted.options, "queued": wanted.queued, "inputs": wanted.inputs}
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value != getattr(known, name)}
    # A done task has no checkpoint; a file in its place is not read.
    checkpoint = None if wanted.status is TaskStatus.DONE else claim.checkpoint()
    if from_start or (checkpoint is None and not failed_only):
        claim.start_over(heeds_cancel=heeds_cancel, **(changes | read_again(wanted, resources.sources)))
        return
    resources.check_unchanged()
    resources.require_collection(rows=wanted.rows if checkpoint is None else checkpoint.rows)
    if failed_only:
        _require_all_read(resources, claim)
        claim.retry_rejects(wanted, START.as_json())
    elif wanted.status is TaskStatus.PENDING and not changes:
        return
    claim.set_back(heeds_cancel=heeds_cancel, **changes)


def _with_limits(task: Task, max_failures: str | None, max_delete: str | None) -> Task:
    """Return a task with the given limits, which have no effect on the stored records."""
    options = task.options
    if max_delete is not None and not options.delete_missing:
        raise UsageFault(
            message=f"task {task.id} deletes nothing, so --max-delete is of no use; it was made without "
            f"--delete-missing"
        )
    options = replace(
        options,
        max_failures=options.max_failures if max_failures is None else max_failures,
        max_delete=options.max_delete if max_delete is None else max_delete,
    )
    return replace(task, options=options)


def _require_target(resources: Resources) -> None:
    """Check that the target is free before a task is set back, so that a done task does not end as refused."""
    if (error := resources.in_use()) is not None:
        raise error
    # If there still is a holder, it is a dead runner with a write in flight, for which the load waits.
    if resources.location.holder() is None:
        resources.location.require_alone()


def _require_all_read(resources: Resources, claim: Claim) -> None:
    """Check that all rows of a task were read, so that only its rejects are left to retry.

    Raises:
        Refusal: Some rows were not read yet.
    """
    task, checkpoint = resources.task, claim.checkpoint()
    if task.status is TaskStatus.DONE or (checkpoint is not None and checkpoint.retried is not None):
        return
    if checkpoint is not None:
        rest = resources.rows.after(Position.from_json(checkpoint.position))
        if next(iter(rest), None) is None:
            return
    state = task.shown_state
    at_limit = task.options.exceeds_max_failures(task.counts.failed, task.counts.read, from_row=0)
    limit = " --max-failures 100%" if at_limit else ""
    raise Refusal(
        message=f"task {task.id} is {state} and has rows that were not read yet; "
        f"let `upsert-cli restart {task.id}{limit}` read them first, then retry the rejects"
    )
