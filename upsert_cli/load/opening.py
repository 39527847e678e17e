"""What a user asked for -> a task to run: one that is new, one that is resumed, or one that needs no work."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from upsert_cli.errors import RowsLeft, TargetInUse, TaskExists, TaskNotFound, TaskRunning, UsageFault
from upsert_cli.journal.checkpoint import Checkpoint
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.task import DIED, Task, TaskStatus
from upsert_cli.load.create import Draft, read_anew
from upsert_cli.load.options import IfRunning, LoadRequest
from upsert_cli.load.resources import place_of_task, sources_of
from upsert_cli.load.same_load import refuse_other_load, signed_again
from upsert_cli.sources.item import START, Position
from upsert_cli.sources.source import Source
from upsert_cli.store.chroma.place import Place

WAIT_STEP = 0.5  # seconds between two tries while another runner has the task


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A task that was asked for, and the right to run it where there is work to do."""

    task: Task | None
    """None when another task has the target's folder and that was to be skipped: then there is none."""

    claim: Claim | None
    """Held already; None when the task needs no work here."""

    queued: bool = False
    """The task is pending, and `upsert-cli work` runs it."""

    created: bool = False
    """The task did not exist before."""

    notes: tuple[str, ...] = ()
    """What the user should know about the sources of a new task."""

    skipped: str | None = None
    """Why there is no work although the task is not done, in words that follow what there is no work for."""


def open_task(
    journal: Journal, request: LoadRequest, *, stdin: BinaryIO, if_running: IfRunning, wait_until: float = math.inf
) -> Opening:
    """Makes sure that there is a task for `request`, and claims it if it is not done yet.

    Args:
        journal: Where tasks are kept.
        request: What to load, and the id to load it under.
        stdin: Read to its end where a source is `-`.
        if_running: What to do when another process runs this very task; with `skip`, also when one has the folder.
        wait_until: Monotonic seconds at which waiting for another runner ends in a refusal.

    Raises:
        TaskConflict: The id stands for another load already.
        TaskRunning: Another process runs the task.
        UsageFault: A source names nothing, or its items do not have the text field.
    """
    with Draft(journal, request, stdin) as draft:
        place = place_of_task(journal, draft.task)  # also looks at what lets us in, before there is a task
        while True:
            if request.task_id is not None and (existing := _find(journal, request.task_id)) is not None:
                refuse_other_load(existing, draft.task)
                return _reopen(journal, existing, draft.task, if_running=if_running, wait_until=wait_until)
            if if_running == "skip" and not request.enqueue and (error := _in_use(place, draft.task)) is not None:
                return Opening(task=None, claim=None, skipped=str(error))
            try:
                task = draft.create()
            except TaskExists:
                continue  # made by another process in this moment, or a new id drawn twice
            if request.enqueue:
                return Opening(task=task, claim=None, created=True, queued=True, notes=tuple(draft.notes))
            try:
                return Opening(task=task, claim=journal.claim(task.id), created=True, notes=tuple(draft.notes))
            except TaskRunning:
                if request.task_id is None:
                    raise
                # Another process that asks for the same id was faster by a moment.


def reopen_task(
    journal: Journal,
    task_id: str,
    *,
    from_start: bool = False,
    failed_only: bool = False,
    limits: Mapping[str, str] | None = None,
    enqueue: bool = False,
) -> Opening:
    """Claims a task that exists and sets it back to pending, whatever its state.

    Args:
        journal: Where tasks are kept.
        task_id: The task.
        from_start: Whether to read all rows again.
        failed_only: Whether to read the rejected rows alone.
        limits: New values of `max_failures` and `max_delete`, by these names.
        enqueue: Whether to leave it to `upsert-cli work`.

    Raises:
        TaskNotFound: There is none.
        TaskRunning: A process runs it.
        TargetInUse: Another task has the target's folder; this one stays what it was.
        TargetBusy: Another program writes to it; the same.
        TargetOpen: Another program has its files open; the same.
        SourceChanged: A source is not what it was when the checkpoint was made.
        RowsLeft: With `failed_only`, some rows were never read.
        UsageFault: A limit is of no use to the task.
    """
    journal.find(task_id)
    claim = journal.claim(task_id)
    try:
        task = journal.find(task_id)
        options = _with_limits(task, limits or {})
        if not enqueue:
            _refuse_in_use(place_of_task(journal, task), task)
        if not failed_only:
            back = _set_back(journal, task, claim, from_start=from_start, options=options, queued=enqueue)
            return _opened(back, claim)
        if task.counts.failed:
            return _opened(_set_back_to_rejects(journal, task, claim, options=options, queued=enqueue), claim)
        _refuse_unread(task, claim)
        claim.release()
        return Opening(task=task, claim=None, skipped=f"task {task_id} has no rejected items")
    except BaseException:
        claim.release()
        raise


def _with_limits(task: Task, limits: Mapping[str, str]) -> LoadOptions:
    """Return the options of a task with other limits, which do not change what is stored."""
    if "max_delete" in limits and not task.options.delete_missing:
        raise UsageFault(
            message=f"task {task.id} deletes nothing, so --max-delete is of no use; it was made without "
            f"--delete-missing"
        )
    return LoadOptions.from_json(task.options.as_json() | dict(limits))


def _opened(task: Task, claim: Claim) -> Opening:
    """Keeps the claim of a task that is to be run here and now."""
    if not task.queued:
        return Opening(task=task, claim=claim)
    claim.release()
    return Opening(task=task, claim=None, queued=True)


def _refuse_in_use(place: Place, task: Task) -> None:
    """Looks before a task is set back whether it could run: one that is done is not to end as refused for that."""
    if (error := _in_use(place, task)) is not None:
        raise error
    if place.holder() is None:  # else the last write of a runner that died is on its way, for which the load waits
        place.require_alone()


def _in_use(place: Place, task: Task) -> TargetInUse | None:
    """Return by whom, unless it is a runner that died, whose last write is on its way and is waited for later."""
    holder = place.holder()
    return None if holder is None or holder.task_id == task.id or holder.is_orphan() else place.in_use(holder)


def _find(journal: Journal, task_id: str) -> Task | None:
    try:
        return journal.find(task_id)
    except TaskNotFound:
        return None


def _reopen(journal: Journal, task: Task, draft: Task, *, if_running: IfRunning, wait_until: float) -> Opening:
    """Resumes a task that is not done, unless somebody is at it, as the draft of the same load says."""
    while True:
        if task.status in (TaskStatus.DONE, TaskStatus.CANCELED):
            return Opening(task=task, claim=None)
        if draft.queued and task.queued and task.status is TaskStatus.PENDING:
            return Opening(task=task, claim=None, queued=True)
        try:
            claim = journal.claim(task.id)
        except TaskRunning:
            if if_running == "skip":
                return Opening(task=task, claim=None, skipped=f"task {task.id} is being run by another process")
            if if_running == "refuse" or time.monotonic() >= wait_until:
                raise
            time.sleep(WAIT_STEP)
            task = journal.find(task.id)
            continue
        task = journal.find(task.id)  # as it is now that nobody else can change it
        if task.status in (TaskStatus.DONE, TaskStatus.CANCELED):
            claim.release()
            continue
        here = if_running == "skip" and not draft.queued
        if here and (error := _in_use(place_of_task(journal, task), task)) is not None:
            claim.release()
            return Opening(task=task, claim=None, skipped=str(error))
        try:
            # The stored records are the same by these options, but how to go on is for the new ones to say.
            task = replace(task, inputs=signed_again(task, draft))
            ready = _set_back(journal, task, claim, from_start=False, options=draft.options, queued=draft.queued)
            return _opened(ready, claim)
        except BaseException:
            claim.release()
            raise


def _set_back(
    journal: Journal,
    task: Task,
    claim: Claim,
    *,
    from_start: bool,
    options: LoadOptions,
    queued: bool,
) -> Task:
    """Makes a claimed task pending again, at its checkpoint or at the start."""
    sources = sources_of(task)
    fields: dict[str, Any] = {} if options == task.options else {"options": options}
    if queued != task.queued:
        fields["queued"] = queued
    if task.inputs != journal.find(task.id).inputs:
        fields["inputs"] = task.inputs
    if from_start or task.status is TaskStatus.DONE or claim.checkpoint() is None:
        fields |= read_anew(task, sources)
        claim.drop_checkpoint()
    else:
        for source in sources:
            source.check_unchanged(task_id=task.id)
    if task.status is TaskStatus.PENDING and not fields:
        return task
    return journal.change(task.id, TaskStatus.PENDING, expect=tuple(TaskStatus), detail=None, **fields)


def _set_back_to_rejects(journal: Journal, task: Task, claim: Claim, *, options: LoadOptions, queued: bool) -> Task:
    """Makes a claimed task pending again, for an attempt that reads the rejected rows alone."""
    sources = sources_of(task)
    for source in sources:
        source.check_unchanged(task_id=task.id)
    _refuse_unread(task, claim)
    claim.retry_rejects(task, START.as_json())
    return journal.change(
        task.id, TaskStatus.PENDING, expect=tuple(TaskStatus), detail=None, options=options, queued=queued
    )


def _refuse_unread(task: Task, claim: Claim) -> None:
    """Makes sure that a task has come to the end of its sources, before nothing but its rejects is of interest."""
    sources = sources_of(task)
    if task.status is not TaskStatus.DONE and not _is_read(claim.checkpoint(), sources, task):
        state = DIED if task.has_died(running=False) else task.status.value  # whoever has the claim knows
        options, counts = task.options, task.counts
        at_limit = options.exceeds_max_failures(counts.failed, counts.read, settled=0)
        raise RowsLeft(task_id=task.id, status=state, is_at_limit=at_limit)


def _is_read(checkpoint: Checkpoint | None, sources: Sequence[Source], task: Task) -> bool:
    """Tells whether no row lies behind the checkpoint."""
    if checkpoint is None or checkpoint.retried is not None:
        return checkpoint is not None
    start = Position.from_json(checkpoint.position)
    rest = task.options.rows(sources).after(start)
    return next(iter(rest), None) is None
