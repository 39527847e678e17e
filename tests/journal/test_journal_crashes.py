"""Processes that are killed at random instants, and many that work at the same time, lose no acknowledged step."""

from __future__ import annotations

import itertools
import random
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.journal.conftest import acknowledged, start_process
from tests.support.journal_driver import ROWS, WINDOWS
from tests.support.journal_tasks import make_task
from upsert_cli.errors import TaskNotFound
from upsert_cli.journal.damage import damaged_files
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task, TaskStatus

FEW_KILLS, MANY_KILLS = 10, 200
ORDER = {"created": 0, "started": 1, "saved": 2, "finished": 3, "retried": 4, "mended": 5}


def check(journal: Journal, steps: list[dict[str, Any]]) -> None:
    """Check that every acknowledged step is there, and that nothing is damaged."""
    tasks = {task.id: task for task in journal.list(limit=100_000)}
    newest: dict[str, dict[str, Any]] = {}
    for step in steps:
        if step["step"] in ORDER:
            newest[step["id"]] = step
    for task_id, step in newest.items():
        assert reached(tasks[task_id]) >= (ORDER[step["step"]], step.get("rows", 0)), step
        assert journal.find(task_id) == tasks[task_id]
    assert damaged_files(journal) == ()
    assert journal.warnings == []


def reached(task: Task) -> tuple[int, int]:
    """Return how far a task is, comparable with the steps that its process reported."""
    assert task.counts.reconciles()
    if task.attempt > 1:
        return reached_again(task)
    match task.status:
        case TaskStatus.PENDING:
            return ORDER["created"], 0
        case TaskStatus.PROCESSING:
            assert [item["row"] for item in task.failed_items] == list(range(1, task.rows // ROWS + 1))
            return ORDER["saved" if task.rows else "started"], task.rows
    assert (task.status, task.rows, task.counts.inserted) == (TaskStatus.DONE, WINDOWS * ROWS, WINDOWS * (ROWS - 1))
    return ORDER["finished"], task.rows


def reached_again(task: Task) -> tuple[int, int]:
    """Return how far the retry of a task's rejects is; before its first checkpoint, the task is unchanged."""
    failed, rows = task.counts.failed, [item["row"] for item in task.failed_items]
    assert task.rows == WINDOWS * ROWS
    match task.status:
        case TaskStatus.PENDING:
            return ORDER["finished"], task.rows
        case TaskStatus.PROCESSING:
            assert rows in ([1, *range(WINDOWS - failed + 2, WINDOWS + 1)], list(range(1, WINDOWS + 1)))
            return ORDER["retried"], WINDOWS - failed + 1
    assert (task.status, failed, rows) == (TaskStatus.DONE, 1, [1])
    return ORDER["mended"], WINDOWS


@pytest.mark.parametrize("kills", [FEW_KILLS, pytest.param(MANY_KILLS, marks=pytest.mark.slow)])
def test_kills_lose_nothing_that_was_acknowledged(journal: Journal, kills: int) -> None:
    """After a kill with -9 at a random instant, the journal has every reported step, and the next process continues."""
    choose = random.Random(kills)
    steps: list[dict[str, Any]] = []
    for number in range(kills):
        process = start_process("driver", "run", journal.folder, f"life{number}", "10000")
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(choose.uniform(0, 0.3))
        process.kill()
        rest, problems = process.communicate()
        assert problems == ""
        steps += acknowledged(first + rest)
        check(Journal(journal.folder), steps)
        assert not any(journal.is_running(step["id"]) for step in steps[-3:])
    assert {step["step"] for step in steps} == {"created", "started", "saved", "finished"}


@pytest.mark.parametrize(("processes", "tasks"), [(4, 25), pytest.param(8, 100, marks=pytest.mark.slow)])
def test_many_processes_and_a_reader(journal: Journal, processes: int, tasks: int) -> None:
    """No update is lost, no id is used twice, one process begins each shared task, and a reader never fails."""
    for number in range(tasks):
        journal.create(make_task(f"shared-{number}"))
    running = [start_process("driver", "race", journal.folder, f"p{number}", str(tasks)) for number in range(processes)]
    over = threading.Event()
    failures: list[BaseException] = []
    looks = itertools.count()
    reader = threading.Thread(target=look, args=(journal.folder, over, failures, looks))
    reader.start()
    outputs = [process.communicate() for process in running]
    over.set()
    reader.join()
    assert [(process.returncode, problems) for process, (_, problems) in zip(running, outputs, strict=True)] == [
        (0, "")
    ] * processes
    assert failures == []
    assert next(looks) > processes
    found = Counter(task.id for task in journal.list(limit=100_000))
    own = {f"p{process}-{number}" for process in range(processes) for number in range(tasks)}
    assert found == Counter(own | {f"shared-{number}" for number in range(tasks)})
    check(
        Journal(journal.folder),
        [step for output, _ in outputs for step in acknowledged(output) if step["step"] != "won"],
    )
    won = Counter(step["id"] for output, _ in outputs for step in acknowledged(output) if step["step"] == "won")
    assert won == Counter(f"shared-{number}" for number in range(tasks))


def look(folder: Path, over: threading.Event, failures: list[BaseException], looks: itertools.count[int]) -> None:
    """List and find tasks until the other processes end; each list contains all tasks of the previous one."""
    journal = Journal(folder)
    seen: dict[str, tuple[int, int]] = {}
    try:
        while not over.is_set():
            for task in journal.list(limit=100_000):
                state = reached(task) if not task.id.startswith("shared") else (0, 0)
                assert state >= seen.get(task.id, state)
                seen[task.id] = state
            assert all(journal.find(task_id).id == task_id for task_id in list(seen)[-5:])
            with pytest.raises(TaskNotFound):
                journal.find("nothing")
            assert journal.warnings == []
            next(looks)
    except BaseException as error:  # noqa: BLE001 -- any error is raised again in the main thread
        failures.append(error)


def test_a_suspended_writer_does_not_block_readers(journal: Journal) -> None:
    """Readers take no lock, so they answer while a writer is suspended at any point."""
    process = start_process("driver", "run", journal.folder, "p", "10000")
    assert process.stdout is not None
    try:
        for _ in range(20):
            process.stdout.readline()
            subprocess.run(["kill", "-STOP", str(process.pid)], check=True)
            assert journal.list(limit=1)[0].id.startswith("p-")
            subprocess.run(["kill", "-CONT", str(process.pid)], check=True)
    finally:
        process.kill()
        process.communicate()
