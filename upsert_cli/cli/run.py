"""The commands that load: `run`, `categories run`, `restart`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from upsert_cli.cli.events import report_failure
from upsert_cli.cli.load_options import load_options, metrics_option
from upsert_cli.cli.mapping import mapping_given, mapping_options
from upsert_cli.cli.options import Session, TaskId, common_options, json_option, option
from upsert_cli.cli.report import RunReport
from upsert_cli.cli.watchers import Watchers
from upsert_cli.errors import TargetInUse, UsageFault
from upsert_cli.journal.tasks import Task, TaskStatus
from upsert_cli.loading.mapping import read_mapping
from upsert_cli.loading.request import DEFAULT_MAX_DELETE, IfRunning, Kind, Options, Request, exit_code

if TYPE_CHECKING:
    from upsert_cli.loading.opening import Opening

# What loads is imported by the functions that load: neither `run --help` nor a shell's Tab waits for it.
TRUE_WORDS = ("1", "true", "t", "yes", "y", "on")  # click's, for a flag in the environment


class Loading(click.Command):
    """A command of events: with --json they end with a summary also if what was typed cannot be meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Reads the options."""
        wanted = self._wants_json(ctx, args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if wanted:
                report_failure(error.format_message(), error.exit_code)
            raise
        except UsageFault as error:  # of a file of settings
            if wanted:
                report_failure(str(error), error.exit_code)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if ctx.params.get("json"):
                report_failure(error.format_message(), error.exit_code)
            raise

    def _wants_json(self, ctx: click.Context, args: list[str]) -> bool:
        # Looked up before the options are read, since that is what may fail.
        given = next(param for param in self.params if param.name == "json").resolve_envvar_value(ctx) or ""
        return "--json" in args or given.lower() in TRUE_WORDS


@click.command(cls=Loading)
@load_options("default")
@mapping_options()
@common_options
def run(session: Session, **options: Any) -> None:
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


@categories.command("run", cls=Loading)
@load_options("categories")
@mapping_options()
@common_options
def run_categories(session: Session, **options: Any) -> None:
    """Load items into the categories collection, as a task.

    The same as `upsert-cli run`, with another default for --collection.
    """
    _load(session, "categories", **options)


@click.command(cls=Loading)
@click.argument("task_id", type=TaskId(), metavar="TASK_ID")
@option("--from-start", is_flag=True, help="Read the sources from their first row again.")
@option("--failed-only", is_flag=True, help="Read just the rejected rows again, of sources that did not change.")
@option("--enqueue", is_flag=True, help="Leave it to `upsert-cli work`, and print the task's id.")
@metrics_option()
@json_option("Print one JSON object a line, the last one a summary.")
@common_options
def restart(
    session: Session,
    *,
    task_id: str,
    from_start: bool,
    failed_only: bool,
    enqueue: bool,
    metrics_file: Path | None,
    json: bool,
) -> None:
    """Set a task back to pending and run it on from its checkpoint.

    Works in every state but for a task that is being run. A source that changed since the checkpoint is refused;
    --from-start reads it anew.
    """
    if from_start and failed_only:
        raise click.UsageError("--from-start reads all rows and --failed-only the rejected ones; choose one of them.")

    def opening() -> Opening:
        from upsert_cli.loading.opening import reopen_task

        return reopen_task(session.journal, task_id, from_start=from_start, failed_only=failed_only, enqueue=enqueue)

    _work(session, json=json, opening=opening, watchers=Watchers(terminal=session.terminal, metrics=metrics_file))


def _load(
    session: Session,
    kind: Kind,
    *,
    sources: tuple[str, ...],
    task_id: str | None,
    chroma: str,
    collection: str,
    model: str,
    if_running: IfRunning,
    wait_timeout: float | None,
    json: bool,
    model_path: Path | None,
    refs_root: Path | None,
    verify: bool,
    dry_run: bool,
    no_compare: bool,
    enqueue: bool,
    metrics_file: Path | None,
    **options: Any,
) -> None:
    if enqueue and (dry_run or verify):
        raise click.UsageError("--enqueue leaves the task to a worker, so it goes neither with --dry-run nor --verify.")
    if options["engine"] == "local" and (options["workers"] or options["num_gpus_per_worker"]):
        raise click.UsageError("--workers and --num-gpus-per-worker go with --engine ray.")
    if no_compare and not dry_run:
        raise click.UsageError("--no-compare goes with --dry-run; a load always compares, unless --force writes all.")
    if options["max_delete"] is None:
        options["max_delete"] = DEFAULT_MAX_DELETE
    elif not options["delete_missing"]:
        raise click.UsageError("--max-delete goes with --delete-missing, without which nothing is deleted.")
    if no_compare and options["delete_missing"]:
        raise click.UsageError("--delete-missing looks at the collection, which --no-compare leaves alone.")
    _check_split(**options)
    given = mapping_given(click.get_current_context(), options)
    request = Request(
        kind=kind,
        names=sources,
        chroma=chroma,
        collection=collection,
        model=model,
        task_id=task_id,
        enqueue=enqueue,
        options=Options(
            **read_mapping(options.pop("map_file"), given),
            model_path=None if model_path is None else str(model_path.absolute()),
            refs_root=None if refs_root is None else str(refs_root.absolute()),
            verbose=session.terminal.verbose,
            **options,
        ),
    )
    if dry_run:
        _rehearse(session, request, json=json, compare=not no_compare)
    wait_until = time.monotonic() + (math.inf if wait_timeout is None else wait_timeout)

    def opening() -> Opening:
        from upsert_cli.loading.opening import open_task

        return open_task(session.journal, request, stdin=sys.stdin.buffer, if_running=if_running, wait_until=wait_until)

    _work(
        session,
        json=json,
        opening=opening,
        wait_until=wait_until if if_running == "wait" else -math.inf,
        skip=if_running == "skip",
        verify=verify,
        watchers=Watchers(terminal=session.terminal, metrics=metrics_file, request=request),
    )


def _check_split(*, split: bool, max_tokens: int | None, overlap: int, average: bool, **_: Any) -> None:
    if not split and (max_tokens is not None or overlap or average):
        raise click.UsageError("--max-tokens, --overlap and --average go with --split.")
    if max_tokens is not None and overlap >= max_tokens:
        raise click.UsageError(f"--overlap {overlap} has to be less than --max-tokens {max_tokens}.")


def _rehearse(session: Session, request: Request, *, json: bool, compare: bool) -> NoReturn:
    """Says what a load would do, and exits as it would."""
    from upsert_cli.loading.rehearsal import rehearse

    with RunReport(session.journal, session.terminal, json=json) as report:
        outcome = rehearse(
            session.journal,
            request,
            stdin=sys.stdin.buffer,
            compare=compare,
            report=report.told,
            warn=report.noted,
        )
        code = request.options.done_code(outcome.counts)
        report.rehearsed(outcome, exit_code=code)
    click.get_current_context().exit(code)


def _work(
    session: Session,
    *,
    json: bool,
    opening: Callable[[], Opening],
    wait_until: float = -math.inf,
    skip: bool = False,
    verify: bool = False,
    watchers: Watchers | None = None,
) -> None:
    """Opens a task, runs it if it needs to be run, and exits as the task did."""
    from upsert_cli.loading.pipeline import run_task

    with RunReport(session.journal, session.terminal, json=json, watchers=watchers) as report:
        opened = opening()
        if opened.queued and opened.task is not None:
            code = 0
            report.queued(opened.task)
        elif opened.claim is None or opened.task is None:
            code = 0 if opened.skipped or opened.task is None else exit_code(opened.task)
            if verify and not opened.skipped and opened.task is not None:
                code = _verify(session, report, opened.task, code)
            report.nothing_to_do(opened.task, exit_code=code, skipped=opened.skipped)
        else:
            with opened.claim as claim:
                try:
                    task = run_task(session.journal, claim, opened.task, observer=report, wait_until=wait_until)
                    code = exit_code(task)
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


def _verify(session: Session, report: RunReport, task: Task, code: int) -> int:
    """Reads back what a task loaded, and returns the graver of the two exit codes."""
    from upsert_cli.checking.subject import Subject
    from upsert_cli.checking.verification import verify as verify_subject

    if task.status is not TaskStatus.DONE:
        return code
    outcome = verify_subject(Subject.of_task(session.journal, task.id), report=report.told)
    report.verified(outcome)
    return min((one for one in (code, outcome.exit_code) if one), default=0)
