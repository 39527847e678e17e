"""The commands `journal check` and `journal repair`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.tables import Column, print_table
from upsert_cli.cli.options.command import Group
from upsert_cli.cli.options.option import json_option
from upsert_cli.embedding.cache import leftovers as leftovers_of_models
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.damage import Damage, damaged_files, leftovers, repair_journal
from upsert_cli.owned_folders import Leftover
from upsert_cli.text import safe

_COLUMNS = (Column("STATE"), Column("FILE"), Column("REASON"))  # a reason names the remedy


@click.group(cls=Group)
def journal() -> None:
    """Check and repair the journal of tasks."""


@journal.command()
@json_option("Print the outcome as JSON.")
def check(session: Session, *, json: bool) -> None:
    """List damaged files and leftovers of crashes; change nothing.

    Exits with 1 as long as there is damage for `upsert-cli journal repair`. Leftovers are copies of standard input
    without a task, and partial downloads in the model cache; `journal repair` removes them.
    """
    found = damaged_files(session.journal)
    left = [*leftovers(session.journal, found), *leftovers_of_models()]
    if json:
        session.print_json(_as_json(session, found, left))
    elif found or left:
        message = session.terminal.printed.message
        rows = [(_state(damage), damage.path.name, message(damage.reason)) for damage in found]
        rows += [("leftover", _name_of(session, leftover), str(leftover)) for leftover in left]
        print_table(session.terminal, _COLUMNS, rows)
    _conclude(session, found, remedy="`upsert-cli journal repair` saves what can be saved")
    if left:
        size = sum(leftover.size for leftover in left)
        session.info(f"leftovers of crashes hold {size:,} bytes; `upsert-cli journal repair` removes them")


@journal.command()
@json_option("Print the outcome as JSON.")
def repair(session: Session, *, json: bool) -> None:
    """Restore damaged files, save the tasks in them, remove leftovers.

    A file comes from its previous generation; damaged files are moved aside and kept. Leftovers are copies of standard
    input without a task, and partial downloads in the model cache. Works during a load.
    """
    steps = repair_journal(session.journal)
    for leftover in leftovers_of_models():
        leftover.remove()
        steps.append(f"{leftover.path}: removed {leftover}")
    found = damaged_files(session.journal)
    if json:
        done = {"steps": [*map(session.terminal.printed.message, steps)]}
        session.print_json(_as_json(session, found, leftovers(session.journal, found)) | done)
    else:
        for step in steps:
            click.echo(safe(session.terminal.printed.message(step)))
    _conclude(session, found, remedy="look at what these files hold")


def _conclude(session: Session, found: tuple[Damage, ...], *, remedy: str) -> None:
    left = sum(not damage.settled for damage in found)
    folder = session.journal.folder
    if left:
        raise UpsertCliError(message=f"the journal in {folder} has {left} damaged file{'s' * (left > 1)}; {remedy}")
    session.info(f"the journal in {folder} is sound")


def _as_json(session: Session, found: tuple[Damage, ...], left: Sequence[Leftover]) -> dict[str, object]:
    message = session.terminal.printed.message
    damaged = [
        {"path": str(damage.path), "reason": message(damage.reason), "settled": damage.settled} for damage in found
    ]
    return {
        "journal": str(session.journal.folder),
        "sound": all(damage.settled for damage in found),
        "damaged": damaged,
        "leftovers": [{"path": str(leftover.path), "bytes": leftover.size} for leftover in left],
    }


def _name_of(session: Session, leftover: Leftover) -> str:
    """Return the path of a leftover, relative to the journal if it is inside."""
    folder, path = session.journal.folder, leftover.path
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def _state(damage: Damage) -> str:
    return "settled" if damage.settled else "damaged"
