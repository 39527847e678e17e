"""The command `report`."""

from __future__ import annotations

from pathlib import Path

import click

from upsert_cli.atomic import write_out
from upsert_cli.cli.display.next_steps import next_steps
from upsert_cli.cli.display.session import Session
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.option import option
from upsert_cli.cli.options.shared_options import task_argument
from upsert_cli.errors import UpsertCliError, reason_of
from upsert_cli.journal.progress import read_timeline
from upsert_cli.report.page import render_page


@click.command(cls=Command)
@task_argument()
@option(
    "--html",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    required=True,
    metavar="FILE",
    help="The HTML page; - is standard output.",
)
def report(session: Session, *, task_id: str, html: Path) -> None:
    """Write a page about one task, for a CI artifact or an email.

    TASK_ID may be the beginning of an id, or `latest`. The page is one file that loads nothing from elsewhere. Works
    during a load.

    \b
    upsert-cli report nightly-2026-11-24 --html report.html
    """
    task = session.task(task_id)
    page = render_page(
        task,
        rejects=session.journal.rejects(task.id),
        course=read_timeline(session.journal.files(task.id).timeline),
        steps=next_steps(task),
        printed=session.terminal.printed,
    )
    if str(html) == "-":
        session.print_text(page)
        return
    try:
        write_out(html, page)
    except OSError as error:
        raise UpsertCliError(
            message=f"{html} cannot be written ({reason_of(error)}); make room or access, or name another file with "
            "--html"
        ) from error
    session.info(f"the page of task {task.id} is in {html}")
