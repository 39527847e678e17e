"""Fixtures and steps for the journal's tests: a journal in an empty folder, tasks in any state, and processes that use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.journal_tasks import make_task
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task, TaskStatus

ROOT = Path(__file__).parents[2]
UNPRIVILEGED = 65_534  # the user `nobody`, since root has every permission


def start(journal: Journal, task_id: str = "t") -> Claim:
    """Claim a task and set it to processing, as a runner does."""
    claim = Claim.take(journal, task_id)
    journal.change(task_id, TaskStatus.PROCESSING, expect=(TaskStatus.PENDING,))
    return claim


def die(claim: Claim) -> None:
    """Leave everything as a killed process does: the kernel frees the lock, and nothing is cleaned up."""
    claim.lease.release()


def finish(claim: Claim, status: TaskStatus, **fields: Any) -> Task:
    """End a task that is being processed."""
    return claim.finish(status, **({"detail": None, "failed_items": ()} | fields))


def reach(journal: Journal, status: TaskStatus, task_id: str = "t") -> None:
    """Create a task and bring it into a state as a runner would."""
    journal.create(make_task(task_id))
    if status is TaskStatus.PENDING:
        return
    claim = start(journal, task_id)
    if status is TaskStatus.PROCESSING:
        die(claim)
        return
    finish(claim, status)
    claim.release()


def start_process(
    module: str, *arguments: str | Path, before: Sequence[str] = (), root: Path = ROOT
) -> subprocess.Popen[str]:
    """Start a module of these tests in its own process, possibly under another program or from a copy."""
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONHASHSEED": "0"}
    return subprocess.Popen(
        [*before, sys.executable, str(root / "tests" / "support" / f"journal_{module}.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def acknowledged(output: str) -> list[dict[str, Any]]:
    """Return the steps that a process has reported as done; the last line may be torn."""
    return [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Return a journal in a folder that does not exist yet."""
    return Journal(tmp_path / "journal")


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Make permissions count even if the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(UNPRIVILEGED)
    try:
        yield
    finally:
        os.seteuid(0)
