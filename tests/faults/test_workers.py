"""Four workers at one queue, one of them killed: each task is done once, and none is lost."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.terminal import Terminal
from tests.support.waiting import wait_until
from upsert_cli.journal.journal import Journal

WORKERS = 4
FOLDERS = 2  # fewer than workers, so that some of them meet
ROWS = 4
FEW, MANY = 5, 200  # tasks; the larger number is run before a release
SECONDS = 3_600.0  # seconds after which a test gives up


def _events(path: Path) -> list[dict[str, Any]]:
    """Return the events that a worker has written; the last line may be torn."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _is_at_work(path: Path) -> bool:
    events = _events(path)
    return bool(events) and events[-1]["type"] != "summary"


def _is_halted_at_work(worker: subprocess.Popen[str], log: Path) -> bool:
    """Halt a worker if it is in the middle of a task."""
    if not _is_at_work(log) or worker.poll() is not None:
        return False
    with suppress(ProcessLookupError):  # it has ended since
        os.killpg(worker.pid, signal.SIGSTOP)
        if _is_at_work(log):
            return True
        os.killpg(worker.pid, signal.SIGCONT)
    return False


def _done_by(path: Path) -> list[str]:
    return [event["id"] for event in _events(path) if event["type"] == "summary" and event["id"] is not None]


def _row(number: int, row: int) -> dict[str, Any]:
    return {"object_id": f"{number}-{row}", "payload": {"text": "x", "vector": [float(number), float(row), 1.0] * 128}}


@pytest.mark.parametrize("tasks", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
def test_each_task_is_done_once(tiny: Terminal, tasks: int) -> None:
    """If a worker is killed during a task, that task is done in two attempts and every other in one."""
    for number in range(tasks):
        tiny.write(f"{number}.jsonl", (_row(number, row) for row in range(ROWS)))
        tiny.type(f"upsert-cli run {number}.jsonl --enqueue -q --task-id t{number} --chroma chroma-{number % FOLDERS}")
    logs = [tiny.folder / f"worker-{name}.jsonl" for name in range(WORKERS)]
    workers = []
    for log in logs:
        with log.open("w") as file:
            workers.append(tiny.start("upsert-cli work --json", stdout=file, stderr=subprocess.DEVNULL))
    halted: list[subprocess.Popen[str]] = []

    def is_one_halted() -> bool:
        pairs = zip(workers, logs, strict=True)
        halted.extend(itertools.islice((worker for worker, log in pairs if _is_halted_at_work(worker, log)), 1))
        return halted != []

    wait_until(is_one_halted)
    [victim] = halted
    os.killpg(victim.pid, signal.SIGKILL)
    assert [worker.wait(SECONDS) for worker in workers] == [-signal.SIGKILL * (one is victim) for one in workers]
    tiny.type("upsert-cli work")  # should the others have ended before
    everything = Journal(tiny.journal).list(limit=tasks + 1)
    assert {task.id: task.status.value for task in everything} == {f"t{number}": "done" for number in range(tasks)}
    assert all(task.counts.read == ROWS and task.counts.failed == 0 for task in everything)
    # None of either, had it just come to its end.
    assert sum(task.attempt > 1 for task in everything) <= 1
    done = [task_id for log in logs for task_id in _done_by(log)]
    assert len(done) == len(set(done)) >= tasks - 1
    for folder in range(FOLDERS):
        (tiny.folder / "chroma").unlink(missing_ok=True)
        (tiny.folder / "chroma").symlink_to(f"chroma-{folder}")
        mine = [number for number in range(tasks) if number % FOLDERS == folder]
        assert set(tiny.records(vectors=True)) == {f"{number}-{row}" for number in mine for row in range(ROWS)}
