"""Prune removes old tasks with all their files and nothing else, whatever runs at the same time."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.journal.test_faults import FAULTS, Strace, calls_in, strace
from tests.support.journal_tasks import make_checkpoint, make_task, segment_at
from upsert_cli.errors import TaskNotFound
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.damage import damaged_files
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.progress import write_checkpoint
from upsert_cli.journal.prune import OldTask, prune_tasks
from upsert_cli.journal.task import TaskStatus

__all__ = ["strace"]  # the fixture

OLD, NEW, BETWEEN = "2026-01-01T00:00:00Z", "2026-11-01T00:00:00Z", "2026-06-01T00:00:00Z"
DONE, FAILED, PENDING = TaskStatus.DONE, TaskStatus.FAILED, TaskStatus.PENDING
GOES = {"o1", "o2", "o3", "m1", "n1"}
STAYS = {"m-new", "m-pending", "m-dead", "n-new"}
POINTS = 4  # points at which a fault strikes by default, spread over all


def _fill(folder: Path) -> Journal:
    """Make three segments: one of only old tasks, one of all kinds, and the newest; each task has all files."""
    journal = Journal(folder)
    journal.create(make_task("o1", status=DONE, updated_at=OLD))
    for name in ("o2", "o3"):
        journal.create(make_task(name, status=FAILED, updated_at=OLD))
    kinds = {
        "m1": (DONE, OLD),
        "m-new": (DONE, NEW),
        "m-pending": (PENDING, OLD),
        "m-dead": (TaskStatus.PROCESSING, OLD),
    }
    newest = {"n1": (DONE, OLD), "n-new": (DONE, NEW)}
    for number, tasks in ((1, kinds), (2, newest)):
        records = [make_task(name, status=each[0], updated_at=each[1]).as_record() for name, each in tasks.items()]
        segment_at(folder, number).insert(*records)
    for name in GOES | STAYS:
        for path in _files(folder, name):
            path.parent.mkdir(exist_ok=True)
            if path.suffix == ".progress":
                write_checkpoint(path, make_checkpoint(0))
            else:
                path.write_bytes(b"")
    return journal


def _files(folder: Path, name: str) -> list[Path]:
    files = Journal(folder).files(name)
    return [*(path for path in files.all if path not in (files.lease, files.spool)), files.spool / "0.jsonl"]


def _check(folder: Path, *, finished: bool) -> None:
    """Check that the kept tasks are whole, that each other task is whole or gone, and that nothing is damaged."""
    journal = Journal(folder)
    there = {task.id for task in journal.list()}
    assert there >= STAYS
    for name in there:
        assert all(path.exists() for path in _files(folder, name)), name
    assert journal.warnings == []
    assert damaged_files(journal) == ()
    if finished:
        assert there == STAYS
        left = {path for path in folder.rglob("*") for name in GOES if path.name.split(".")[0].split("~")[0] == name}
        assert left == set()
        assert not (folder / "pruned.json").exists()


def test_old_tasks_go_with_their_files(tmp_path: Path) -> None:
    """Old tasks in a final state are removed, and segments without other tasks, except the newest; ids can be used again."""
    journal = _fill(tmp_path)
    assert {task.id for task in prune_tasks(journal, before=BETWEEN, dry_run=True)} == GOES
    assert {task.id for task in journal.list()} == GOES | STAYS
    gone = prune_tasks(journal, before=BETWEEN)
    assert {task.id for task in gone} == GOES
    assert OldTask(id="o1", status=DONE, updated_at=OLD) in gone
    _check(tmp_path, finished=True)
    assert not list(tmp_path.glob("tasks-000000*"))
    assert prune_tasks(journal, before=BETWEEN) == []
    with pytest.raises(TaskNotFound):
        journal.find("o1")
    journal.create(make_task("o1"))
    assert journal.find("o1").status is PENDING
    assert {task.id for task in prune_tasks(journal)} == {"m-new", "n-new"}
    assert [task.id for task in journal.list()] == ["o1", "m-dead", "m-pending"]


def test_the_newest_stay_and_only_given_states_count(tmp_path: Path) -> None:
    """`keep` counts the newest tasks of the given states, which never include a state that is not final."""
    journal = _fill(tmp_path)

    def would_go(**wanted: Any) -> list[str]:
        return [task.id for task in prune_tasks(journal, **wanted, dry_run=True)]

    assert would_go(keep=3) == ["m1", "o3", "o2", "o1"]
    assert would_go(keep=1, statuses=(FAILED,)) == ["o2"]
    assert would_go(statuses=(PENDING, TaskStatus.PROCESSING)) == []
    assert would_go(keep=100) == []


def test_a_task_that_changes_during_a_prune_stays(tmp_path: Path) -> None:
    """A task that is claimed, or changed since it was selected, stays whole."""
    journal = _fill(tmp_path)
    with Claim.take(journal, "o1"):
        gone = {task.id for task in prune_tasks(journal, before=BETWEEN)}
    assert gone == GOES - {"o1"}
    assert all(path.exists() for path in _files(tmp_path, "o1"))
    journal.change("o1", PENDING, expect=(DONE,))
    assert prune_tasks(journal) != []
    assert journal.find("o1").status is PENDING


def test_readers_do_not_notice_a_prune(tmp_path: Path) -> None:
    """While tasks are created and pruned, a reader finds each kept task, and never meets an error or a warning."""
    journal = _fill(tmp_path)
    done = threading.Event()
    problems: list[str] = []

    def read() -> None:
        reader = Journal(tmp_path)
        while not done.is_set():
            if not {task.id for task in reader.list(limit=1_000)} >= STAYS:
                problems.append("a task that stays was not listed")
            reader.find("m-pending")
        problems.extend(reader.warnings)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for turn in range(20):
            journal.create(make_task(f"extra-{turn}", status=DONE, updated_at=OLD))
            prune_tasks(journal, before=BETWEEN)
    finally:
        done.set()
        thread.join()
    assert problems == []


def test_an_id_that_is_used_again_keeps_its_files(tmp_path: Path) -> None:
    """The next prune removes the leftovers of an interrupted one, except the files of an id that was used again."""
    journal = _fill(tmp_path)
    for number, name in ((0, "o1"), (0, "o2")):
        segment_at(tmp_path, number).remove(name)
    (tmp_path / "pruned.json").write_text('{"ids": ["o1", "o2", "o3", "../o1"]}')
    journal.create(make_task("o2"))
    journal.files("o2").rejects.write_bytes(b"")
    later = time.time() + 60
    os.utime(journal.files("o1").spool, (later, later))  # as if the interrupted prune had removed another file in it
    assert prune_tasks(journal, keep=100) == []
    assert not any(path.exists() for path in _files(tmp_path, "o1"))
    assert journal.files("o2").rejects.exists()
    assert all(path.exists() for path in _files(tmp_path, "o3"))
    assert not (tmp_path / "pruned.json").exists()


@pytest.fixture(scope="module")
def points(strace: Strace, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, int]]:
    """Return all points of a prune at which a fault can strike."""
    folder = tmp_path_factory.mktemp("points")
    _fill(folder / "journal")
    done = strace.run(folder, step=("prune", BETWEEN))
    assert (done.returncode, done.stderr) == (0, "")
    _check(folder / "journal", finished=True)
    found = list(calls_in(folder / "log", folder / "journal"))
    assert {name for name, _ in found} >= {"fsync", "rename", "unlink"}
    assert len(found) > 60
    return found


def _strike(strace: Strace, point: tuple[str, int], fault: str, folder: Path) -> None:
    name, number = point
    _fill(folder / "journal")
    done = strace.run(folder, "-e", f"inject={name}:{FAULTS[fault]}:when={number}", step=("prune", BETWEEN))
    if fault == "kill":
        assert done.returncode != 0
    else:  # the step was made again, as a user would do
        assert done.returncode == 0, done.stderr
    _check(folder / "journal", finished=fault != "kill")
    prune_tasks(Journal(folder / "journal"), before=BETWEEN)
    _check(folder / "journal", finished=True)


@pytest.mark.parametrize("fault", FAULTS)
def test_some_system_calls_fail(strace: Strace, points: list[tuple[str, int]], fault: str, tmp_path: Path) -> None:
    """At points spread over a prune, each task is whole or gone, nothing is damaged, and the next prune completes it."""
    for place in range(list(FAULTS).index(fault), len(points), -(-len(points) // POINTS)):
        _strike(strace, points[place], fault, tmp_path / str(place))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_every_system_call_fails(strace: Strace, points: list[tuple[str, int]], fault: str, tmp_path: Path) -> None:
    """The same holds at every point of a prune."""
    for place, point in enumerate(points):
        _strike(strace, point, fault, tmp_path / str(place))
        shutil.rmtree(tmp_path / str(place))
