"""The commands that load: `run`, `categories run`, `restart`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from upsert_cli.cli.json_command import Eventful
from upsert_cli.cli.load_options import MAX_DELETE_HELP, MAX_FAILURES_HELP, load_options, metrics_option
from upsert_cli.cli.load_report import RunReport
from upsert_cli.cli.load_request import request_of
from upsert_cli.cli.mapping_options import mapping_options
from upsert_cli.cli.notifications import Notifications
from upsert_cli.cli.options import Invocation, TaskId, common_options, json_option, option
from upsert_cli.cli.param_types import Share
from upsert_cli.cli.streams import require_stdout
from upsert_cli.cli.terminal import TerminalContext
from upsert_cli.errors import TargetInUse
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.journal.task_ids import resolve_task_id
from upsert_cli.limits import require_resources
from upsert_cli.load.request import Kind, LoadRequest

if TYPE_CHECKING:
    from upsert_cli.load.open import OpenedTask

_FAILED_ONLY_HELP = (
    "Read only the rejected rows again. It applies once a cause outside the sources is gone, such as a missing file "
    "that they name; sources that changed need --from-start."
)

# What loads is imported by the functions that load: neither `run --help` nor a shell's Tab waits for it.


@click.command(cls=Eventful)
@load_options("default")
@mapping_options()
@common_options
def run(session: Invocation, **options: Any) -> None:
    """Load items into the default collection, as a task.

    SOURCE is a file of JSONL, CSV, TSV (these also with .gz or .zst) or Parquet, a folder of them, a glob, or - for
    JSONL on standard input. An item is {"object_id": ..., "payload": {"text": ...}, "item_info": {...}}; for other
    shapes see --id-field, --id-from, --text-field and --template.

    \b
    upsert-cli run articles.jsonl --chroma ./chroma
    upsert-cli run nightly/ --task-id nightly-2026-11-24 -q --if-running skip
    """
    _load(session, "default", **options)


@click.group()
def categories() -> None:
    """Work on the categories collection."""


@categories.command("run", cls=Eventful)
@load_options("categories")
@mapping_options()
@common_options
def run_categories(session: Invocation, **options: Any) -> None:
    """Load items into the categories collection, as a task.

    The same as `upsert-cli run`, with another default for --collection.
    """
    _load(session, "categories", **options)


@click.command(cls=Eventful)
@click.argument("task_id", type=TaskId(), metavar="TASK_ID")
@option("--from-start", is_flag=True, help="Read the sources from their first row again.")
@option("--failed-only", is_flag=True, help=_FAILED_ONLY_HELP)
@option("--max-failures", type=Share(), show_default="as before", help=MAX_FAILURES_HELP)
@option("--max-delete", type=Share(), show_default="as before", help=MAX_DELETE_HELP)
@option("--enqueue", is_flag=True, help="Leave it to `upsert-cli work`, and print the task's id.")
@metrics_option()
@json_option("Print one JSON object a line, the last one a summary.")
@common_options
def restart(
    session: Invocation,
    *,
    task_id: str,
    from_start: bool,
    failed_only: bool,
    max_failures: str | None,
    max_delete: str | None,
    enqueue: bool,
    metrics_file: Path | None,
    json: bool,
) -> None:
    """Set a task back to pending and run it on from its checkpoint.

    TASK_ID is an id, a beginning that only one id has, or `latest` for the newest task. Works in every state, but not
    while the task is being run. A source that changed since the checkpoint is refused; --from-start reads it again.
    """
    if enqueue and not session.terminal.quiet:
        require_stdout()
    if from_start and failed_only:
        raise click.UsageError("--from-start reads all rows and --failed-only the rejected ones; choose one of them.")

    def opening() -> OpenedTask:
        from upsert_cli.load.open import restart_task

        if not enqueue:
            require_resources()
        found = resolve_task_id(session.journal, task_id)
        return restart_task(
            session.journal,
            found,
            from_start=from_start,
            failed_only=failed_only,
            max_failures=max_failures,
            max_delete=max_delete,
            enqueue=enqueue,
        )

    _work(session, json=json, opening=opening, watchers=Notifications(terminal=session.terminal, metrics=metrics_file))


def _load(session: Invocation, kind: Kind, **options: Any) -> None:
    json, verify, if_running = options["json"], options["verify"], options["if_running"]
    wait_timeout: float | None = options["wait_timeout"]
    if options["enqueue"] and not session.terminal.quiet:
        require_stdout()
    request = request_of(kind, session.terminal, **options)
    if options["dry_run"]:
        _rehearse(session, request, json=json, compare=not options["no_compare"])
    wait_until = time.monotonic() + (math.inf if wait_timeout is None else wait_timeout)

    def opening() -> OpenedTask:
        from upsert_cli.load.open import open_task

        if not request.enqueue:
            require_resources()
        return open_task(
            session.journal,
            request,
            stdin=sys.stdin.buffer,
            if_running=if_running,
            wait_until=wait_until,
            context=TerminalContext(session.terminal),
        )

    _work(
        session,
        json=json,
        opening=opening,
        wait_until=wait_until if if_running == "wait" else -math.inf,
        skip=if_running == "skip",
        verify=verify,
        watchers=Notifications(terminal=session.terminal, metrics=options["metrics_file"], request=request),
    )


def _rehearse(session: Invocation, request: LoadRequest, *, json: bool, compare: bool) -> NoReturn:
    """Says what a load would do, and exits as it would."""
    from upsert_cli.load.dry_run import dry_run_load

    with RunReport(session.journal, session.terminal, json=json) as report:
        require_resources()
        outcome = dry_run_load(
            session.journal,
            request,
            stdin=sys.stdin.buffer,
            compare=compare,
            report=report.info,
            warn=report.warning,
        )
        code = request.options.done_code(outcome.counts) if outcome.broken is None else outcome.broken.exit_code
        report.dry_run_finished(outcome, exit_code=code)
    click.get_current_context().exit(code)


def _work(
    session: Invocation,
    *,
    json: bool,
    opening: Callable[[], OpenedTask],
    wait_until: float = -math.inf,
    skip: bool = False,
    verify: bool = False,
    watchers: Notifications | None = None,
) -> None:
    """Opens a task, runs it if it needs to be run, and exits as the task did."""
    from upsert_cli.cluster.coordinator import load_on_ray
    from upsert_cli.load.run import run_task

    with RunReport(session.journal, session.terminal, json=json, watchers=watchers) as report:
        opened = opening()
        if opened.queued and opened.task is not None:
            code = 0
            report.queued(opened.task)
        elif opened.claim is None or opened.task is None:
            code = 0 if opened.skipped or opened.task is None else opened.task.exit_code
            if verify and not opened.skipped and opened.task is not None:
                code = _verify(session, report, opened.task, code)
            report.nothing_to_do(opened.task, exit_code=code, skipped=opened.skipped)
        else:
            with opened.claim as claim:
                try:
                    task = run_task(
                        session.journal,
                        claim,
                        opened.task,
                        observer=report,
                        load_in_units=load_on_ray,
                        wait_until=wait_until,
                    )
                    code = task.exit_code
                    if verify:
                        code = _verify(session, report, task, code)
                    report.finished(task, exit_code=code)
                except TargetInUse as error:
                    if not skip:
                        raise
                    # Another process took the folder in the moment since it was looked at.
                    code = 0
                    if opened.created:
                        claim.withdraw()
                    left = None if opened.created else session.journal.find(opened.task.id)
                    report.nothing_to_do(left, exit_code=code, skipped=str(error))
    click.get_current_context().exit(code)


def _verify(session: Invocation, report: RunReport, task: Task, code: int) -> int:
    """Reads back what a task loaded, and returns the graver of the two exit codes."""
    from upsert_cli.verify.expected import Subject
    from upsert_cli.verify.verification import verify as verify_subject

    if task.status is not TaskStatus.DONE:
        return code
    outcome = verify_subject(Subject.of_task(session.journal, task.id), context=TerminalContext(session.terminal))
    report.verified(outcome)
    return min((one for one in (code, outcome.exit_code) if one), default=0)
