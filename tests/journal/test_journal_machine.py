"""After any sequence of creating, running, canceling, restarting and dying, the journal equals a dictionary.

A death is one at a system call: from the n-th call that changes a file, none is made any more, and the last write may
be torn. Afterwards the journal has the state before or after the step, never a third one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.journal.conftest import finish, start
from tests.support.journal_tasks import make_checkpoint, make_task
from upsert_cli.errors import TaskExists, TaskRunning, WrongStatus
from upsert_cli.journal.claims import Claim, request_cancel
from upsert_cli.journal.damage import damaged_files
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import TaskStatus
from upsert_cli.leases import Lease

PENDING, PROCESSING, CANCELED = TaskStatus.PENDING, TaskStatus.PROCESSING, TaskStatus.CANCELED
FEW, MANY = 100, 2_000  # examples
CHANGING = ("write", "fsync", "link", "replace", "rename", "unlink", "ftruncate", "pwrite", "mkdir", "chmod")


class Death(BaseException):
    """Raised in place of a system call that the dying process no longer makes."""


@contextmanager
def dying(calls: int, leases: list[Lease]) -> Iterator[None]:
    """Make this process's n-th call that changes a file its last one, and collect the leases that it takes."""
    left = calls
    real_take = Lease.take

    def taking(*arguments: Any, **options: Any) -> Lease:
        leases.append(real_take(*arguments, **options))
        return leases[-1]

    def dies(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and name == "write":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            if left <= 0:
                raise Death
            return real(*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lease, "take", taking)
        for name in CHANGING:
            patch.setattr(os, name, dies(getattr(os, name), name))
        yield


@dataclass(frozen=True)
class Expected:
    """The model's knowledge of a task."""

    status: TaskStatus = PENDING
    rows: int = 0
    checkpoint: int | None = None
    cancel: bool = False

    @property
    def shown_rows(self) -> int:
        """Return the rows that `find` shows: the checkpoint's, while the task is being processed."""
        return self.checkpoint if self.status is PROCESSING and self.checkpoint is not None else self.rows


class JournalMachine(RuleBasedStateMachine):
    """A process that runs tasks and dies now and then, one that cancels them, and a dictionary as the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="journal-"))
        self.model: dict[str, Expected] = {}
        self.claims: dict[str, Claim] = {}
        self.leases: list[Lease] = []
        self.journal = Journal(self.folder / "journal")
        self.other = Journal(self.folder / "journal")

    def teardown(self) -> None:
        self.die()
        self.other.close()
        shutil.rmtree(self.folder)

    def die(self) -> None:
        """Leave everything to the kernel, which frees the locks."""
        while self.leases:
            self.leases.pop().release()
        self.claims.clear()
        self.journal.close()
        self.journal = Journal(self.folder / "journal")

    def do(self, task_id: str, after: Expected, step: Callable[[], object], death: int) -> None:
        """Make a step that may be the process's last, and find out its effect."""
        before = self.model.get(task_id)
        try:
            with dying(death, self.leases):
                step()
        except Death:
            self.die()
            found = {task.id: task for task in Journal(self.folder / "journal").list(limit=1_000)}.get(task_id)
            if found is None:
                assert before is None
                return
            with Claim.take(self.journal, task_id) as claim:
                checkpoint = claim.checkpoint()
            possible = [state for state in (before, after, self.between(before, after)) if state is not None]
            rows = None if checkpoint is None else checkpoint.rows
            assert (found.status, found.rows, rows, found.cancel_requested) in {
                (state.status, state.shown_rows, state.checkpoint, state.cancel) for state in possible
            }
            self.model[task_id] = next(
                state
                for state in possible
                if (state.status, state.shown_rows, state.checkpoint, state.cancel)
                == (found.status, found.rows, rows, found.cancel_requested)
            )
        else:
            self.model[task_id] = after

    @staticmethod
    def between(before: Expected | None, after: Expected) -> Expected | None:
        """Return the state in the middle: a task that is done has its record written before its checkpoint is removed; one that starts again, after."""
        if before is None:
            return None
        if after.status is TaskStatus.DONE:
            return replace(after, checkpoint=before.checkpoint)
        return replace(before, checkpoint=after.checkpoint)

    def any_task(self, data: st.DataObject, *statuses: TaskStatus, claimed: bool | None = None) -> str | None:
        names = [
            name
            for name, state in self.model.items()
            if state.status in statuses and claimed in (None, name in self.claims)
        ]
        return data.draw(st.sampled_from(names)) if names else None

    deaths = st.one_of(st.just(10_000), st.integers(1, 40))  # none, or one of the calls of a step

    @rule(death=deaths)
    def create(self, death: int) -> None:
        name = f"t{len(self.model)}"
        self.do(name, Expected(), lambda: self.journal.create(make_task(name)), death)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def create_again(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        with pytest.raises(TaskExists):
            self.other.create(make_task(name))

    @precondition(lambda self: self.model)
    @rule(data=st.data(), death=deaths)
    def begin(self, data: st.DataObject, death: int) -> None:
        if (name := self.any_task(data, PENDING)) is None:
            return

        def step() -> None:
            self.claims[name] = start(self.journal, name)

        self.do(name, replace(self.model[name], status=PROCESSING), step, death)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), rows=st.integers(0, 1_000), death=deaths)
    def save(self, data: st.DataObject, rows: int, death: int) -> None:
        if (name := self.any_task(data, PROCESSING, claimed=True)) is None:
            return
        after = replace(self.model[name], checkpoint=rows)
        self.do(name, after, lambda: self.claims[name].save(make_checkpoint(rows)), death)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), death=deaths, status=st.sampled_from([status for status in TaskStatus if status.is_final]))
    def end(self, data: st.DataObject, status: TaskStatus, death: int) -> None:
        if (name := self.any_task(data, PROCESSING, claimed=True)) is None:
            return
        claim, now = self.claims[name], self.model[name]
        rows = now.checkpoint or 0
        after = Expected(status, rows, None if status is TaskStatus.DONE else now.checkpoint)

        def step() -> None:
            finish(claim, status, checkpoint=make_checkpoint(rows))
            claim.release()

        self.do(name, after, step, death)
        self.claims.pop(name, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def claim_what_runs(self, data: st.DataObject) -> None:
        if (name := self.any_task(data, *TaskStatus, claimed=True)) is not None:
            with pytest.raises(TaskRunning):
                Claim.take(self.other, name)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), death=deaths)
    def cancel(self, data: st.DataObject, death: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        now = self.model[name]
        if now.status.is_final and now.status is not CANCELED:
            with pytest.raises(WrongStatus):
                request_cancel(self.other, name)
            return
        if name in self.claims:
            self.do(
                name, replace(now, cancel=True, rows=now.shown_rows), lambda: request_cancel(self.other, name), death
            )
        else:
            after = Expected(CANCELED, now.shown_rows, now.checkpoint)
            self.do(name, after, lambda: request_cancel(self.other, name), death)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), from_start=st.booleans(), death=deaths)
    def restart(self, data: st.DataObject, death: int, *, from_start: bool) -> None:
        if (name := self.any_task(data, *set(TaskStatus) - {PENDING}, claimed=False)) is None:
            return
        now = self.model[name]
        fields: dict[str, Any] = {"rows": 0} if from_start else {}

        def step() -> None:
            with Claim.take(self.journal, name) as claim:
                if from_start:
                    claim.drop_checkpoint()
                self.journal.change(name, PENDING, expect=tuple(TaskStatus), **fields)

        after = Expected(PENDING, 0 if from_start else now.shown_rows, None if from_start else now.checkpoint)
        self.do(name, after, step, death)

    @rule()
    def crash(self) -> None:
        self.die()

    @invariant()
    def all_tasks_are_as_expected(self) -> None:
        for journal in (self.other, Journal(self.folder / "journal")):
            tasks = journal.list(limit=1_000)
            assert [task.id for task in tasks] == list(self.model)[::-1]
            for task in tasks:
                state = self.model[task.id]
                assert (task.status, task.rows, task.cancel_requested) == (state.status, state.shown_rows, state.cancel)
                assert journal.is_running(task.id) == (task.id in self.claims)
            assert damaged_files(journal) == ()
            assert journal.warnings == []


@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_no_sequence_of_steps_and_deaths_confuses_the_journal(examples: int) -> None:
    """The journal agrees with the model after every step, and after every death with the state before or after it."""
    run_state_machine_as_test(
        JournalMachine,
        settings=settings(
            max_examples=examples, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
