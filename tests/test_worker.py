"""The queue's worker: which task it takes next, and when it gives one up; without a Chroma."""

from __future__ import annotations

import gc
import io
import itertools
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from tests.support.journal_tasks import make_checkpoint, make_task, segment_at
from upsert_cli.cli.root import cli
from upsert_cli.cluster.unit_load import load_on_ray
from upsert_cli.context import RunContext
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.errors import Interrupted, UpsertCliError
from upsert_cli.journal.claims import Claim, request_cancel
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.load import open as open_module
from upsert_cli.load.load_context import Observer
from upsert_cli.load.open import open_task, restart_task
from upsert_cli.load.queue_worker import GRAVITY, MAX_DEATHS, claim_queued, run_queued, worst_exit_code
from upsert_cli.load.request import LoadRequest, OpenedTask
from upsert_cli.load.run import run_task
from upsert_cli.load.task_sources import read_again
from upsert_cli.sources.source import Source

PENDING, PROCESSING = TaskStatus.PENDING, TaskStatus.PROCESSING


class _Unseen:
    """An observer of a task that must not be run."""

    def started(self, task: Task) -> None:
        raise AssertionError(f"task {task.id} must not be run")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def _work_off(journal: Journal) -> list[tuple[Task, UpsertCliError | None]]:
    tasks = claim_queued(journal, watch=None, context=RunContext())
    return [run_queued(journal, claim, task, observer=_Unseen(), load_in_units=load_on_ray) for task, claim in tasks]


def _die(journal: Journal, task_id: str, *, rows: int) -> None:
    """Leave a task in the state after its worker died."""
    with Claim.take(journal, task_id) as claim:
        if journal.find(task_id).status is PROCESSING:
            journal.change(task_id, PENDING, expect=(PROCESSING,), detail=None)
        journal.change(task_id, PROCESSING, expect=(PENDING,), started_at="2026-11-23T21:03:12Z")
        claim.save(make_checkpoint(rows))


def test_only_queued_tasks_without_a_runner_wait(tmp_path: Path) -> None:
    """Pending and orphaned tasks of the queue wait, the oldest first; running, final and unqueued tasks do not."""
    journal = Journal(tmp_path)
    for name in ("running", "orphan", "pending", "done", "canceled"):
        journal.create(make_task(name, queued=True))
    journal.create(make_task("own"))
    _die(journal, "orphan", rows=10)
    request_cancel(journal, "canceled")
    _die(journal, "done", rows=10)
    journal.change("done", TaskStatus.DONE, expect=(PROCESSING,))
    journal.create(make_task("newest", queued=True))
    with Claim.take(journal, "running"):
        assert [task.id for task in journal.waiting()] == ["orphan", "pending", "newest"]
    assert [task.id for task in journal.waiting()] == ["running", "orphan", "pending", "newest"]


def test_the_oldest_is_found_in_many_segments(tmp_path: Path) -> None:
    """The oldest task comes first, wherever it stands, and segments without a waiting one are not parsed."""
    journal = Journal(tmp_path)
    journal.create(make_task("first", status=TaskStatus.DONE))
    done = make_task("t", status=TaskStatus.DONE)
    for number in range(1, 8):
        records = [replace(done, id=f"t{number}-{place}").as_record() for place in range(3)]
        segment_at(tmp_path, number).insert(*records)
    (tmp_path / "tasks-000006.json").write_bytes(
        (tmp_path / "tasks-000006.json").read_bytes().replace(b'"detail": null', b'"detail": NOT JSON', 1)
    )  # would be named if it were parsed
    journal.create(make_task("new", queued=True))
    journal.change("t2-1", PENDING, expect=(TaskStatus.DONE,), queued=True)
    journal.change("t4-0", PENDING, expect=(TaskStatus.DONE,), queued=True)
    looking = Journal(tmp_path)
    assert [task.id for task in looking.waiting()] == ["t2-1", "t4-0", "new"]
    assert looking.warnings == []


def test_a_task_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    """A task fails after five deaths without a row of progress; a row of progress starts the count again."""
    journal = Journal(tmp_path)
    journal.create(make_task("kills", queued=True))
    for rows in (0, 0, *[10] * MAX_DEATHS):
        _die(journal, "kills", rows=rows)
    ((task, error),) = _work_off(journal)
    assert isinstance(error, UpsertCliError)
    assert (task.status, task.exit_code) == (TaskStatus.FAILED, 1)
    assert "5 workers died" in str(journal.find("kills").detail)
    assert _work_off(journal) == []


def test_a_canceled_task_whose_runner_died_is_not_taken_over(tmp_path: Path) -> None:
    """A wish to cancel counts although the runner died before it saw it: no worker continues the task."""
    journal = Journal(tmp_path)
    journal.create(make_task("t", queued=True))
    with Claim.take(journal, "t") as claim:
        claim.begin()
        claim.save(make_checkpoint(10))
        assert request_cancel(journal, "t").cancel_requested
    assert _work_off(journal) == []
    assert (journal.find("t").status, journal.find("t").rows) == (TaskStatus.CANCELED, 10)


def test_a_cancel_between_two_workers_is_not_lost(tmp_path: Path) -> None:
    """A task is canceled, not continued, if the wish arrives after a worker has claimed it and before it is pending."""
    journal = Journal(tmp_path)
    journal.create(make_task("t", queued=True))
    _die(journal, "t", rows=10)
    with Claim.take(journal, "t") as claim:
        assert claim.taken_over().status is PROCESSING
        assert request_cancel(Journal(tmp_path), "t").cancel_requested
        assert claim.set_back(heeds_cancel=True).status is TaskStatus.CANCELED
    task = journal.find("t")
    assert (task.rows, task.detail) == (10, "task t was canceled; `upsert-cli restart t` continues it")
    assert _work_off(journal) == []


def test_a_cancel_of_a_worker_that_a_signal_ends_is_not_lost(tmp_path: Path) -> None:
    """A task whose worker is stopped by a signal before it sees the wish to cancel does not go back to the queue."""
    journal = Journal(tmp_path)
    journal.create(make_task("t", queued=True))
    with Claim.take(journal, "t") as claim:
        claim.begin()
        request_cancel(Journal(tmp_path), "t")
        assert claim.finish(PENDING, detail="stopped by SIGTERM").status is TaskStatus.CANCELED
    assert _work_off(journal) == []


@pytest.mark.parametrize("queued", [False, True])
def test_a_task_that_is_canceled_before_a_signal_ends_its_runner_is_canceled(tmp_path: Path, *, queued: bool) -> None:
    """The signal ends the process, but neither a worker nor `run` continues the task, so the message names `restart`."""
    journal = Journal(tmp_path)
    journal.create(make_task("t", queued=queued))

    def stop(task: Task) -> None:
        request_cancel(Journal(tmp_path), task.id)
        raise Interrupted(task_id=task.id, signal_number=signal.SIGTERM, queued=queued)

    observer = create_autospec(Observer, instance=True)
    observer.started.side_effect = stop
    with Claim.take(journal, "t") as claim, pytest.raises(Interrupted) as stopped:
        run_task(claim, observer=observer, load_in_units=load_on_ray, wait_until=0.0)
    task = journal.find("t")
    assert (task.status, task.stopped_by) == (TaskStatus.CANCELED, "SIGTERM")
    assert str(stopped.value) == "task t was stopped by SIGTERM; `upsert-cli restart t` continues it"


def test_the_gravest_exit_code() -> None:
    """1 beats 4 beats 5 beats 3 beats 0, in any order; no task at all is 0."""
    assert GRAVITY == (1, 4, 5, 3, 0)
    for place, code in enumerate(GRAVITY):
        for others in itertools.permutations(GRAVITY[place:]):
            assert worst_exit_code(others) == code
    assert worst_exit_code([]) == 0


@pytest.mark.parametrize("attempts", [1, 30])
def test_earlier_attempts_are_bounded(tmp_path: Path, attempts: int) -> None:
    """A record holds the last twenty attempts before the newest one, each with its number and its end."""
    journal = Journal(tmp_path)
    journal.create(make_task("t", queued=True))
    for rows in range(attempts):
        _die(journal, "t", rows=rows)
    task = journal.find("t")
    assert task.attempt == attempts
    assert [each.attempt for each in task.attempts] == list(range(max(1, attempts - 20), attempts + 1))
    assert [each.counts.read for each in task.attempts] == [each.attempt - 1 for each in task.attempts]


class _Asked:
    """A request with the id of a task, and a cancel that arrives while its sources are found again."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source = folder / "a.jsonl"
        self.source.write_text('{"object_id": "a", "payload": {"text": "a"}}\n')
        self.journal = Journal(folder / "journal")
        self._monkeypatch = monkeypatch

    def run(self, *, enqueue: bool) -> OpenedTask:
        request = LoadRequest(
            kind="default",
            names=(str(self.source),),
            chroma=str(self.source.with_name("chroma")),
            collection="default",
            model=DEFAULT_MODEL,
            options=LoadOptions(),
            task_id="t",
            enqueue=enqueue,
        )
        return open_task(
            self.journal, request, stdin=io.BytesIO(), if_running="refuse", wait_until=0.0, context=RunContext()
        )

    def begin(self) -> None:
        with Claim.take(self.journal, "t") as claim:
            claim.begin()

    def cancel(self) -> None:
        request_cancel(Journal(self.journal.folder), "t")

    def cancel_later(self) -> None:
        def cancel_and_read(task: Task, sources: Sequence[Source]) -> dict[str, Any]:
            self.cancel()
            return read_again(task, sources)

        self._monkeypatch.setattr(open_module, "read_again", cancel_and_read)

    def check_canceled(self, opened: OpenedTask) -> None:
        assert self.journal.find("t").status is TaskStatus.CANCELED
        assert opened.task is not None
        assert (opened.task.status, opened.exit_code, opened.claim) == (TaskStatus.CANCELED, 5, None)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Asked:
    """Return requests for a task that does not exist yet."""
    return _Asked(tmp_path, monkeypatch)


@pytest.mark.parametrize("enqueue", [False, True])
@pytest.mark.parametrize("has_begun", [False, True])
def test_a_cancel_while_a_run_resumes_the_task_is_not_lost(asked: _Asked, *, enqueue: bool, has_begun: bool) -> None:
    """A task that is canceled while `run --task-id` takes it over stays canceled, and the run reports that."""
    created = asked.run(enqueue=not enqueue)
    if created.claim is not None:
        created.claim.release()
    if has_begun:
        asked.begin()
    asked.cancel_later()
    asked.check_canceled(asked.run(enqueue=enqueue))


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_cancel_while_a_task_is_restarted_is_not_lost(asked: _Asked, *, has_begun: bool) -> None:
    """A task that is canceled while `restart` sets it back stays canceled, and the restart reports that."""
    asked.run(enqueue=True)
    if has_begun:
        asked.begin()
    asked.cancel_later()
    asked.check_canceled(restart_task(asked.journal, "t", from_start=True, enqueue=True))


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_restart_continues_a_task_that_was_canceled_before(asked: _Asked, *, has_begun: bool) -> None:
    """The restart is the later wish, also if the runner died before it saw the cancel."""
    asked.run(enqueue=True)
    if has_begun:
        with Claim.take(asked.journal, "t") as claim:
            claim.begin()
            asked.cancel()
    else:
        asked.cancel()
    restarted = restart_task(asked.journal, "t", enqueue=True)
    assert restarted.queued
    assert asked.journal.find("t").status is PENDING


def test_ended_tasks_are_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that runs for weeks keeps no ended task, whose rejects may take megabytes."""
    journal = Journal(tmp_path)
    for name in ("t1", "t2", "t3", "t4"):
        journal.create(make_task(name, queued=True))
    kept: list[int] = []

    def run_queued(journal: Journal, _claim: Claim, task: Task, **_: object) -> tuple[Task, None]:
        gc.collect()
        kept.append(sum(isinstance(each, Task) and each.status is TaskStatus.DONE for each in gc.get_objects()))
        journal.change(task.id, PROCESSING, expect=(PENDING,), started_at="2026-11-23T21:03:12Z")
        return journal.change(task.id, TaskStatus.DONE, expect=(PROCESSING,)), None

    monkeypatch.setattr("upsert_cli.load.queue_worker.run_queued", run_queued)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["work", "--journal", str(tmp_path)])
    assert kept[1:] == kept[1:2] * 3
