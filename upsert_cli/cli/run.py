"""The commands `run` and `categories run`."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from upsert_cli.cli.attempt import attempt_opened
from upsert_cli.cli.display.load_report import RunReport
from upsert_cli.cli.display.session import Session
from upsert_cli.cli.options.command import Command, Group
from upsert_cli.cli.options.load_options import load_options, load_request, refuse_contradictions
from upsert_cli.signals import EndedBySignal

if TYPE_CHECKING:
    from upsert_cli.load.request import IfRunning, Kind, LoadRequest


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
    if options["enqueue"]:
        session.require_stdout()
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
        return attempt_opened(session, opened, report, verify=verify, if_running=if_running, wait_until=wait_until)
