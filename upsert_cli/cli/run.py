"""The commands `run` and `categories run`, and how they and `restart` run a task."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from upsert_cli.cli.display.invocation import Invocation
from upsert_cli.cli.display.load_report import RunReport
from upsert_cli.cli.display.streams import require_stdout
from upsert_cli.cli.error_boundary import EventCommand
from upsert_cli.cli.options.help_format import SectionedGroup
from upsert_cli.cli.options.load_options import load_options
from upsert_cli.cli.options.load_request import load_request, refuse_contradictions
from upsert_cli.cli.options.option import common_options
from upsert_cli.errors import TargetInUse
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.limits import require_resources
from upsert_cli.load.request import IfRunning, Kind, LoadRequest

if TYPE_CHECKING:
    from upsert_cli.load.open import OpenedTask

# What loads is imported by the functions that load: neither `run --help` nor the completion in a shell waits for it.


@click.command(cls=EventCommand)
@load_options("default")
@common_options
def run(session: Invocation, **options: Any) -> None:
    """Load items into the default collection, as a task.

    SOURCE is a file of JSONL, CSV, TSV or Parquet, a folder, a glob, an s3://, gs://, az:// or https:// address, - for
    JSONL on standard input, or a collection, chroma:TARGET#COLLECTION. An item is {"object_id": ..., "payload":
    {"text": ...}, "item_info": {...}}; the options under Input map rows of other shapes.

    \b
    upsert-cli run articles.jsonl --chroma ./chroma
    upsert-cli run nightly/ --task-id nightly-2026-11-24 -q --if-running skip
    """
    _run(session, "default", options)


@click.group(cls=SectionedGroup)
def categories() -> None:
    """Load items into the categories collection."""


@categories.command("run", cls=EventCommand)
@load_options("categories")
@common_options
def run_categories(session: Invocation, **options: Any) -> None:
    """Load items into the categories collection, as a task.

    The same as `upsert-cli run`, with another default for --collection.
    """
    _run(session, "categories", options)


def _run(session: Invocation, kind: Kind, options: dict[str, Any]) -> NoReturn:
    refuse_contradictions(options)
    if options["enqueue"] and not session.terminal.quiet:
        require_stdout()
    del options["json"]
    how = {name: options.pop(name) for name in ("if_running", "wait_timeout", "verify", "metrics_file")}
    dry_run, compare = options.pop("dry_run"), not options.pop("no_compare")
    request = load_request(kind, session.terminal, **options)
    if dry_run:
        _dry_run(session, request, compare=compare)
    _load(session, request, **how)


def _dry_run(session: Invocation, request: LoadRequest, *, compare: bool) -> NoReturn:
    """Report the outcome of a dry run, and exit as the load would."""
    from upsert_cli.load.dry_run import dry_run_load

    with RunReport(session) as report:
        require_resources()
        outcome = dry_run_load(
            session.journal, request, stdin=sys.stdin.buffer, compare=compare, context=session.context
        )
        code = request.options.done_code(outcome.counts) if outcome.broken is None else outcome.broken.exit_code
        report.dry_run_finished(outcome, exit_code=code)
    click.get_current_context().exit(code)


def _load(
    session: Invocation,
    request: LoadRequest,
    *,
    if_running: IfRunning,
    wait_timeout: float | None,
    verify: bool,
    metrics_file: Path | None,
) -> NoReturn:
    from upsert_cli.load.open import open_task

    wait_until = time.monotonic() + (math.inf if wait_timeout is None else wait_timeout)
    with RunReport(session, metrics=metrics_file, request=request) as report:
        if not request.enqueue:
            require_resources()
        opened = open_task(
            session.journal,
            request,
            stdin=sys.stdin.buffer,
            if_running=if_running,
            wait_until=wait_until,
            context=session.context,
        )
        until = wait_until if if_running == "wait" else -math.inf
        code = run_opened(session, opened, report, wait_until=until, skip=if_running == "skip", verify=verify)
    click.get_current_context().exit(code)


def run_opened(
    session: Invocation,
    opened: OpenedTask,
    report: RunReport,
    *,
    wait_until: float = -math.inf,
    skip: bool = False,
    verify: bool = False,
) -> int:
    """Run a task if it needs to be run, report its end, and return its exit code.

    Args:
        session: The journal and the outputs.
        opened: The task.
        report: Observes the run.
        wait_until: The monotonic time until which to wait for another task in the same folder.
        skip: Whether to do nothing if another task has the folder.
        verify: Whether to read everything back after the load.
    """
    task = opened.task
    if task is not None and opened.queued:
        report.queued(task)
        return 0
    if task is None or opened.claim is None:
        code = 0 if opened.skipped or task is None else task.exit_code
        if verify and not opened.skipped and task is not None:
            code = _verify(session, report, task, code)
        report.nothing_to_do(task, exit_code=code, skipped=opened.skipped)
        return code
    from upsert_cli.cluster.unit_load import load_on_ray
    from upsert_cli.load.run import run_task

    with opened.claim as claim:
        try:
            task = run_task(claim, observer=report, load_in_units=load_on_ray, wait_until=wait_until)
        except TargetInUse as error:
            if not skip:
                raise
            # Another process took the folder in the short time since it was found free.
            if opened.created:
                claim.withdraw()
            left = None if opened.created else session.journal.find(task.id)
            report.nothing_to_do(left, exit_code=0, skipped=str(error))
            return 0
        code = task.exit_code
        if verify:
            code = _verify(session, report, task, code)
        report.finished(task, exit_code=code)
        return code


def _verify(session: Invocation, report: RunReport, task: Task, code: int) -> int:
    """Read back the records of a task, and return the more serious of the two exit codes."""
    from upsert_cli.verify.expected import Subject
    from upsert_cli.verify.verification import verify as verify_subject

    if task.status is not TaskStatus.DONE:
        return code
    outcome = verify_subject(Subject.of_task(session.journal, task.id), context=session.context)
    report.verified(outcome)
    return min((each for each in (code, outcome.exit_code) if each), default=0)
