"""The command that reads back: `verify`."""

from __future__ import annotations

from pathlib import Path

import click

from upsert_cli.cli.options import Invocation, TaskId, all_of, common_options, json_option, option
from upsert_cli.cli.tables import Column, print_table
from upsert_cli.cli.target_options import chroma_option, model_place
from upsert_cli.cli.terminal import TerminalContext
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.task import TaskStatus
from upsert_cli.journal.task_ids import resolve_task_id
from upsert_cli.limits import require_resources
from upsert_cli.report.printed_commands import how_to_continue
from upsert_cli.text import safe_json
from upsert_cli.verify.expected import Subject
from upsert_cli.verify.repair import repair as repair_subject
from upsert_cli.verify.verification import Verification
from upsert_cli.verify.verification import verify as verify_subject

_COLUMNS = (Column(title="PROBLEM"), Column(title="ID"), Column(title="DETAIL", widths=(40, 20)))


@click.command()
@click.argument("task_id", type=TaskId(), metavar="[TASK_ID]", required=False)
@chroma_option(", where no task is given")
@option("--collection", default="default", metavar="NAME", help="The collection to read, where no task is given.")
@option("--repair", is_flag=True, help="Write again what is missing, unreadable or different.")
@all_of(model_place(", for a repair where no task is given"))
@json_option("Print the outcome as one JSON object, also on failure.")
@common_options
def verify(
    session: Invocation,
    *,
    task_id: str | None,
    chroma: str,
    collection: str,
    repair: bool,
    model_path: Path | None,
    offline: bool,
    json: bool,
) -> None:
    """Read every record back with its vector, and compare it with a task's sources.

    TASK_ID is an id, a beginning that only one id has, or `latest` for the newest task.

    Exits with 0 if all is well, with 3 if records are missing, unreadable, different or not found by their own vector,
    with 1 if the collection cannot be read at all. --repair writes those again, from the task's sources or from what
    Chroma still holds; an index that cannot be read is moved aside, never deleted, and made anew.

    \b
    upsert-cli verify nightly-2026-11-24
    upsert-cli verify --collection default --chroma ./chroma --repair
    """
    options = LoadOptions(model_path=None if model_path is None else str(model_path.absolute()), offline=offline)
    try:
        require_resources()
        if task_id is not None:
            task_id = resolve_task_id(session.journal, task_id)
            _warn_of_missing_rows(session, task_id)
            subject = Subject.of_task(session.journal, task_id)
        else:
            subject = Subject.of_collection(session.journal, chroma, collection, options)
        outcome = (repair_subject if repair else verify_subject)(subject, context=TerminalContext(session.terminal))
    except UpsertCliError as error:
        if json:
            message = session.terminal.printed.complete(str(error))
            click.echo(safe_json({"ok": False, "error": message, "exit_code": error.exit_code}))
        raise
    _show(session, outcome, json=json)
    click.get_current_context().exit(outcome.exit_code)


def _warn_of_missing_rows(session: Invocation, task_id: str) -> None:
    """Say before rows are reported as missing that their task has not loaded them yet."""
    task, running = session.journal.look_at(task_id)
    if running or task.status is TaskStatus.DONE:
        return
    died = task.has_died(running=running)
    what = f"the runner of task {task.id} died" if died else f"task {task.id} is {task.status}"
    session.terminal.warn(f"{what}, so rows may be missing; {how_to_continue(task)}")


def _show(session: Invocation, outcome: Verification, *, json: bool) -> None:
    if json:
        click.echo(safe_json(outcome.as_json()))
    elif outcome.found.wrong:
        print_table(session.terminal, _COLUMNS, list(outcome.found.examples()))
    if outcome.repaired is not None:
        repaired = outcome.repaired
        for name in repaired.aside:
            session.terminal.say(f"the damaged index is kept as {name}; remove it once all is well")
        for identifier in repaired.removed:
            session.terminal.say(f"taken out of the queue that it blocked: {identifier}")
        session.terminal.say(f"{repaired.written:,} records written again")
    if not outcome.found.wrong:
        session.terminal.say(outcome.summary())
        return
    session.terminal.fail(outcome.summary())
    if outcome.repaired is None:
        session.terminal.show(f"  to repair it: {session.terminal.printed.command(outcome.repair_command())}")
