"""The commands that look after the journal: `journal check`, `journal repair`."""

from __future__ import annotations

import click

from upsert_cli.cli.options import Session, common_options, json_option
from upsert_cli.cli.tables import Column, print_table
from upsert_cli.cli.text import safe, safe_json
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.journal import Damage

_COLUMNS = (Column(title="STATE"), Column(title="FILE"), Column(title="REASON"))  # a reason names the remedy


@click.group()
def journal() -> None:
    """Look after the journal of tasks."""


@journal.command()
@json_option("Print one JSON object.")
@common_options
def check(session: Session, *, json: bool) -> None:
    """List the files of the journal that are damaged, or that were and are moved aside.

    Exits with 1 while there is damage that `upsert-cli journal repair` has not dealt with. Changes nothing.
    """
    found = session.journal.damaged()
    if json:
        click.echo(safe_json(_as_json(session, found)))
    elif found:
        complete = session.terminal.printed.complete
        rows = [(_state(damage), damage.path.name, complete(damage.reason)) for damage in found]
        print_table(session.terminal, _COLUMNS, rows)
    _conclude(session, found, remedy="`upsert-cli journal repair` saves what can be saved")


@journal.command()
@json_option("Print one JSON object.")
@common_options
def repair(session: Session, *, json: bool) -> None:
    """Restore what is damaged from the generation before, and save whole tasks out of damaged files.

    Damaged files are moved aside and kept. Tells each step in a line; works beside a running load.
    """
    steps = session.journal.repair()
    found = session.journal.damaged()
    if json:
        click.echo(safe_json(_as_json(session, found) | {"steps": [*map(session.terminal.printed.complete, steps)]}))
    else:
        for step in steps:
            click.echo(safe(session.terminal.printed.complete(step)))
    _conclude(session, found, remedy="look at what these files hold")


def _conclude(session: Session, found: tuple[Damage, ...], *, remedy: str) -> None:
    left = sum(not damage.settled for damage in found)
    folder = session.journal.folder
    if left:
        session.terminal.fail(f"the journal in {folder} has {left} damaged file{'s' * (left > 1)}; {remedy}")
        click.get_current_context().exit(UpsertCliError.exit_code)
    session.terminal.say(f"the journal in {folder} is sound")


def _as_json(session: Session, found: tuple[Damage, ...]) -> dict[str, object]:
    complete = session.terminal.printed.complete
    damaged = [
        {"path": str(damage.path), "reason": complete(damage.reason), "settled": damage.settled} for damage in found
    ]
    return {
        "journal": str(session.journal.folder),
        "sound": all(damage.settled for damage in found),
        "damaged": damaged,
    }


def _state(damage: Damage) -> str:
    return "settled" if damage.settled else "damaged"
