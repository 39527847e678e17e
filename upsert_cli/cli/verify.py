"""The command `verify`."""

from __future__ import annotations

from pathlib import Path

import click

from upsert_cli.cli.display.load_summary import show_verification
from upsert_cli.cli.display.next_steps import how_to_continue
from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.tables import Column, print_table
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.option import all_of, json_option, option
from upsert_cli.cli.options.shared_options import (
    CHROMA_OPTION,
    MODEL_FILES_OPTIONS,
    collection_option,
    model_options,
    task_argument,
)
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.limits import require_resources
from upsert_cli.verify.expected import subject_of_task
from upsert_cli.verify.repair import repair as repair_subject
from upsert_cli.verify.subject import Subject
from upsert_cli.verify.verification import Verification
from upsert_cli.verify.verification import verify as verify_subject

_COLUMNS = (Column("PROBLEM"), Column("ID"), Column("DETAIL", widths=(40, 20)))


@click.command(cls=Command)
@task_argument("[TASK_ID]", required=False)
@CHROMA_OPTION
@collection_option("The collection to read, without a TASK_ID.")
@option("--repair", is_flag=True, help="Write records again that are not as they should be.")
@all_of(MODEL_FILES_OPTIONS)
@json_option("Print the outcome as JSON, also on failure.")
def verify(
    session: Session,
    *,
    task_id: str | None,
    chroma: str,
    collection: str,
    repair: bool,
    model_path: Path | None,
    offline: bool,
    json: bool,
) -> int:
    """Read every record back and compare it with the sources.

    TASK_ID may be the beginning of an id, or `latest`. Exits with 3 if records are missing, unreadable, different or
    not found by their own vector, with 1 if the collection cannot be read at all. --repair writes such records again,
    from the sources or the documents in Chroma; an unreadable index is moved aside and rebuilt.

    \b
    upsert-cli verify nightly-2026-11-24
    upsert-cli verify --collection default --chroma ./chroma --repair
    """
    options = model_options(model_path=model_path, offline=offline)
    try:
        require_resources()
        if task_id is not None:
            task = session.task(task_id)
            _warn_of_missing_rows(session, task)
            subject = subject_of_task(session.journal, task.id, options)
        else:
            subject = Subject.of_collection(session.journal, chroma, collection, options)
        outcome = (repair_subject if repair else verify_subject)(subject, context=session)
    except UpsertCliError as error:
        if json:
            message = session.terminal.printed.message(str(error))
            session.print_json({"ok": False, "error": message, "exit_code": error.exit_code})
        raise
    _show(session, outcome, json=json)
    return outcome.exit_code


def _warn_of_missing_rows(session: Session, task: Task) -> None:
    """Warn that the task has not loaded all rows yet, before rows are reported as missing."""
    if task.running or task.status is TaskStatus.DONE:
        return
    what = f"the runner of task {task.id} died" if task.has_died else f"task {task.id} is {task.shown_state}"
    session.warning(f"{what}, so rows may be missing; {how_to_continue(task)}")


def _show(session: Session, outcome: Verification, *, json: bool) -> None:
    terminal = session.terminal
    if json:
        session.print_json(outcome.as_json())
    elif outcome.wrong:
        print_table(terminal, _COLUMNS, list(outcome.examples()))
    if (repaired := outcome.repaired) is not None:
        for name in repaired.aside:
            terminal.info(f"the damaged index is kept as {name}; remove it once all is well")
        for identifier in repaired.removed:
            terminal.info(f"removed from the queue that it blocked: {identifier}")
        terminal.info(f"{repaired.written:,} records written again")
    show_verification(terminal, outcome, examples=False)
