"""A process that uses a journal until it is killed and reports its steps: one JSON object per line.

A step that was reported is acknowledged: no crash may undo it.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.journal_tasks import make_checkpoint, make_reject, make_task
from upsert_cli.errors import TaskExists, UpsertCliError, WrongStatus
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.progress import Checkpoint
from upsert_cli.journal.prune import prune_tasks
from upsert_cli.journal.rejects import JsonLines
from upsert_cli.journal.spool import Incoming, spool
from upsert_cli.journal.task import TaskStatus

PENDING, PROCESSING = TaskStatus.PENDING, TaskStatus.PROCESSING
WINDOWS, ROWS = 3, 10  # batches of a task, each with one reject, and rows of a batch
INPUT = b"what is read only once\n" * 1_000


def report(step: str, task_id: str, **facts: Any) -> None:
    """Report a step as done, in one write, so that a kill leaves no half of it in a buffer."""
    os.write(1, (json.dumps({"step": step, "id": task_id} | facts) + "\n").encode())


def claim_and_wait(folder: Path, task_id: str) -> None:
    """Claim a task and never release it."""
    with Claim.take(Journal(folder), task_id):
        report("claimed", task_id)
        time.sleep(600)


def attempt(step: Callable[[], Any]) -> Any:
    """Make a step, and a second time if the journal could not be written, as a user would after making room."""
    try:
        return step()
    except (TaskExists, WrongStatus):
        raise
    except UpsertCliError as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        try:
            return step()
        except (TaskExists, WrongStatus):
            return None  # it was done, only its durability was not known


def keep_input(journal: Journal) -> Path:
    """Spool input for a task that is about to be created, and return the folder."""
    folder: Path = attempt(Incoming(journal.layout).folder)
    attempt(lambda: spool(io.BytesIO(INPUT), folder / "0.jsonl", name="-"))
    return folder


def run(journal: Journal, task_id: str, incoming: Path | None = None) -> None:
    """Take a task from its creation to its end, with all steps of a run."""
    attempt(lambda: journal.create(make_task(task_id), incoming=incoming))
    report("created", task_id)
    claim: Claim = attempt(lambda: Claim.take(journal, task_id))
    attempt(lambda: journal.change(task_id, PROCESSING, expect=(PENDING,)))
    report("started", task_id)
    rejects: JsonLines = attempt(lambda: JsonLines.open_at(journal.files(task_id).rejects, 0))
    for batch in range(1, WINDOWS + 1):
        length = attempt(partial(rejects.append, [make_reject(batch)]))
        checkpoint = make_checkpoint(batch * ROWS, rejects_bytes=length, failed=batch)
        attempt(partial(claim.save, checkpoint))
        report("saved", task_id, rows=checkpoint.rows)
    attempt(rejects.close)
    end(claim, checkpoint)
    report("finished", task_id)
    claim.release()


def end(claim: Claim, checkpoint: Checkpoint) -> None:
    """Record that a task is done."""
    attempt(lambda: claim.finish(TaskStatus.DONE, detail=None, checkpoint=checkpoint))


def retry(journal: Journal, task_id: str) -> None:
    """Retry the rejects of a done task; the first one fails again."""
    claim: Claim = attempt(lambda: Claim.take(journal, task_id))
    attempt(lambda: claim.retry_rejects(journal.find(task_id), {}))
    attempt(lambda: journal.change(task_id, PENDING, expect=(TaskStatus.DONE,), attempt=2))
    attempt(lambda: journal.change(task_id, PROCESSING, expect=(PENDING,)))
    rejects: JsonLines = attempt(lambda: JsonLines.open_at(journal.files(task_id).rejects, 0))
    length = attempt(partial(rejects.append, [make_reject(1)]))
    for batch in range(1, WINDOWS + 1):
        counted = make_checkpoint(WINDOWS * ROWS, rejects_bytes=length, failed=WINDOWS - batch + 1)
        checkpoint = replace(counted, retried=batch)
        attempt(partial(claim.save, checkpoint))
        report("retried", task_id, rows=batch)
    attempt(rejects.close)
    end(claim, checkpoint)
    report("mended", task_id)
    claim.release()


def run_many(folder: Path, prefix: str, count: int) -> None:
    """Run `count` tasks one after the other."""
    journal = Journal(folder)
    for number in range(count):
        run(journal, f"{prefix}-{number}")


def do_everything(folder: Path, prefix: str) -> None:
    """Run a task with spooled input and a retry, and another that finds the journal's files already there."""
    journal = Journal(folder)
    run(journal, f"{prefix}-0", keep_input(journal))
    retry(journal, f"{prefix}-0")
    run(journal, f"{prefix}-1")


def race(folder: Path, prefix: str, count: int) -> None:
    """Run own tasks, and try to be the first to begin each of those that all processes share."""
    journal = Journal(folder)
    for number in range(count):
        run(journal, f"{prefix}-{number}")
        try:
            journal.change(f"shared-{number}", PROCESSING, expect=(PENDING,), detail=prefix)
        except WrongStatus:
            continue
        report("won", f"shared-{number}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["claim", where, which]:
            claim_and_wait(Path(where), which)
        case ["run", where, name, times]:
            run_many(Path(where), name, int(times))
        case ["everything", where, name]:
            do_everything(Path(where), name)
        case ["prune", where, moment]:
            gone = attempt(lambda: prune_tasks(Journal(Path(where)), before=moment))
            report("pruned", "", ids=[task.id for task in gone])
        case ["race", where, name, times]:
            race(Path(where), name, int(times))
