"""The commands `run` and `categories run`, and how they and `restart` run a task."""

from __future__ import annotations

import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from upsert_cli.cli.display.load_report import RunReport
from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.streams import require_stdout
from upsert_cli.cli.options.command import Command, Group
from upsert_cli.cli.options.load_options import load_options, load_request, refuse_contradictions
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.signals import EndedBySignal

if TYPE_CHECKING:
    from upsert_cli.load.request import IfRunning, Kind, LoadRequest, OpenedTask

# What loads is imported by the functions that load: neither `run --help` nor the completion in a shell waits for it.


@click.command(cls=Command, prints_events=True)
@load_options("default")
def run(session: Session, **options: Any) -> int:
    """Load items into the default collection, as a task.

    SOURCE is a file, a folder, a glob, an s3://, gs://, az:// or https:// address, - for JSONL on standard input, or a
    collection, chroma:TARGET#COLLECTION. An item is {"object_id": ..., "payload": {"text": ...}, "item_info": {...}};
    the options under Input map rows of other shapes.

    \b
    upsert-cli run articles.jsonl --chroma ./chroma
    upsert-cli run nightly/ --task-id nightly-2026-11-24 -q --if-running skip
    """
    return _run(session, "default", options)


@click.group(cls=Group)
def categories() -> None:
    """Load items into the categories collection."""


@categories.command("run", prints_events=True)
@load_options("categories")
def run_categories(session: Session, **options: Any) -> int:
    """Load items into the categories collection, as a task.

    The same as `upsert-cli run`, with another default for --collection.
    """
    return _run(session, "categories", options)


def _run(session: Session, kind: Kind, options: dict[str, Any]) -> int:
    refuse_contradictions(options)
    if options["enqueue"] and not session.terminal.quiet:
        require_stdout()
    how = {name: options.pop(name) for name in ("if_running", "wait_timeout", "verify", "metrics_file")}
    dry_run, compare = options.pop("dry_run"), not options.pop("no_compare")
    request = load_request(kind, verbose=session.terminal.verbose, **options)
    return _dry_run(session, request, compare=compare) if dry_run else _load(session, request, **how)


def _dry_run(session: Session, request: LoadRequest, *, compare: bool) -> int:
    from upsert_cli.load.dry_run import dry_run_load

    with RunReport(session) as report:
        outcome = dry_run_load(session.journal, request, stdin=sys.stdin.buffer, compare=compare, context=session)
        report.dry_run_finished(outcome)
    return outcome.exit_code


def _load(
    session: Session,
    request: LoadRequest,
    *,
    if_running: IfRunning,
    wait_timeout: float | None,
    verify: bool,
    metrics_file: Path | None,
) -> int:
    from upsert_cli.load.open import open_task

    wait_until = time.monotonic() + (math.inf if wait_timeout is None else wait_timeout)
    with RunReport(session, metrics=metrics_file, request=request) as report:
        try:
            opened = open_task(
                session.journal,
                request,
                stdin=sys.stdin.buffer,
                if_running=if_running,
                wait_until=wait_until,
                context=session,
            )
        except EndedBySignal as error:
            raise EndedBySignal(error.number, "before anything was loaded") from error
        return run_and_report(session, opened, report, verify=verify, if_running=if_running, wait_until=wait_until)


def run_and_report(
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
            code = _verify(session, report, opened.task, code)
        report.ended(opened, exit_code=code)
    return code


def _verify(session: Session, report: RunReport, task: Task, code: int) -> int:
    """Read back the records of a task, and return the more serious of the two exit codes."""
    if task.status is not TaskStatus.DONE:
        return code
    from upsert_cli.verify.expected import Subject
    from upsert_cli.verify.verification import verify as verify_subject

    outcome = verify_subject(Subject.of_task(session.journal, task.id), context=session)
    report.verified(outcome)
    return min((each for each in (code, outcome.exit_code) if each), default=0)
