"""One attempt at a task, reported from its start to its end: for `run`, `restart` and `work`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from upsert_cli.cli.display.load_report import RunReport
from upsert_cli.cli.display.session import Session
from upsert_cli.journal.task import Task, TaskStatus

if TYPE_CHECKING:
    from upsert_cli.journal.claims import Claim
    from upsert_cli.load.request import IfRunning, OpenedTask

# The functions that load import the loading modules: neither `run --help` nor the completion in a shell waits for them.


def attempt_opened(
    session: Session,
    opened: OpenedTask,
    report: RunReport,
    *,
    if_running: IfRunning = "refuse",
    wait_until: float = 0.0,
    verify: bool = False,
) -> int:
    """Run a task if it needs to be run, report its end, and return its exit code.

    Args:
        session: The journal and the outputs.
        opened: The task.
        report: Observes the run.
        if_running: See `run_opened`, also for the next one.
        wait_until: Monotonic seconds.
        verify: Whether to read everything back after the load.
    """
    with opened.claim or nullcontext():
        if opened.claim is not None:
            from upsert_cli.cluster.unit_load import load_on_ray
            from upsert_cli.load.run import run_opened

            opened = run_opened(
                opened,
                opened.claim,
                observer=report.observer,
                load_in_units=load_on_ray,
                if_running=if_running,
                wait_until=wait_until,
            )
        code = opened.exit_code
        if verify and opened.task is not None and opened.skipped is None:
            code = _verify(session, opened.task, report, code=code)
        report.ended(opened, exit_code=code)
    return code


def _verify(session: Session, task: Task, report: RunReport, *, code: int) -> int:
    """Read back the records of a task, and return the graver of the two exit codes."""
    if task.status is not TaskStatus.DONE:
        return code
    from upsert_cli.load.queue_worker import worst_exit_code
    from upsert_cli.verify.expected import subject_of_task
    from upsert_cli.verify.verification import verify as verify_subject

    outcome = verify_subject(subject_of_task(session.journal, task.id), context=session)
    report.verified(outcome)
    return worst_exit_code([code, outcome.exit_code])


def attempt_queued(session: Session, task: Task, claim: Claim, *, metrics: Path | None) -> tuple[TaskStatus, int]:
    """Run a task of the queue, report its end, and return its state and its exit code."""
    from upsert_cli.cluster.unit_load import load_on_ray
    from upsert_cli.load.queue_worker import run_queued

    with RunReport(session, metrics=metrics, one_of_many=True) as report:
        task, error = run_queued(session.journal, claim, task, observer=report.observer, load_in_units=load_on_ray)
        if error is None:
            report.finished(task, exit_code=task.exit_code)
        else:
            report.failed(error, exit_code=task.exit_code)
            session.terminal.error(str(error))
    return task.status, task.exit_code
