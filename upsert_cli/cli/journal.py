"""The commands that look after the journal: `journal check`, `journal repair`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from upsert_cli.cli.options import Invocation, common_options, json_option
from upsert_cli.cli.tables import Column, print_table
from upsert_cli.embedding.cache import leftovers as leftovers_of_models
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.damage import damaged_files, leftovers, repair_journal
from upsert_cli.journal.segments import Damage
from upsert_cli.owned_folders import Leftover
from upsert_cli.text import safe, safe_json

_COLUMNS = (Column(title="STATE"), Column(title="FILE"), Column(title="REASON"))  # a reason names the remedy


@click.group()
def journal() -> None:
    """Look after the journal of tasks."""


@journal.command()
@json_option("Print one JSON object.")
@common_options
def check(session: Invocation, *, json: bool) -> None:
    """List the files of the journal that are damaged, or that were and are moved aside, and what is left of crashes.

    Exits with 1 while there is damage that `upsert-cli journal repair` has not dealt with. Leftovers are copies of
    standard input without a task, and partial downloads in the model cache; `journal repair` removes them. Changes
    nothing.
    """
    found = damaged_files(session.journal)
    left = [*leftovers(session.journal), *leftovers_of_models()]
    if json:
        click.echo(safe_json(_as_json(session, found, left)))
    elif found or left:
        complete = session.terminal.printed.complete
        rows = [(_state(damage), damage.path.name, complete(damage.reason)) for damage in found]
        rows += [("leftover", _name_of(session, one), str(one)) for one in left]
        print_table(session.terminal, _COLUMNS, rows)
    _conclude(session, found, remedy="`upsert-cli journal repair` saves what can be saved")
    if left:
        size = sum(one.size for one in left)
        session.terminal.say(f"leftovers of crashes hold {size:,} bytes; `upsert-cli journal repair` removes them")


@journal.command()
@json_option("Print one JSON object.")
@common_options
def repair(session: Invocation, *, json: bool) -> None:
    """Restore what is damaged from the generation before, and save whole tasks out of damaged files.

    Damaged files are moved aside and kept. What killed processes have left goes: copies of standard input without a
    task, and partial downloads in the model cache. Tells each step in a line; works beside a running load.
    """
    steps = repair_journal(session.journal)
    for one in leftovers_of_models():
        one.remove()
        steps.append(f"{one.path}: removed {one}")
    found = damaged_files(session.journal)
    if json:
        told = {"steps": [*map(session.terminal.printed.complete, steps)]}
        click.echo(safe_json(_as_json(session, found, leftovers(session.journal)) | told))
    else:
        for step in steps:
            click.echo(safe(session.terminal.printed.complete(step)))
    _conclude(session, found, remedy="look at what these files hold")


def _conclude(session: Invocation, found: tuple[Damage, ...], *, remedy: str) -> None:
    left = sum(not damage.settled for damage in found)
    folder = session.journal.folder
    if left:
        session.terminal.fail(f"the journal in {folder} has {left} damaged file{'s' * (left > 1)}; {remedy}")
        click.get_current_context().exit(UpsertCliError.exit_code)
    session.terminal.say(f"the journal in {folder} is sound")


def _as_json(session: Invocation, found: tuple[Damage, ...], left: Sequence[Leftover]) -> dict[str, object]:
    complete = session.terminal.printed.complete
    damaged = [
        {"path": str(damage.path), "reason": complete(damage.reason), "settled": damage.settled} for damage in found
    ]
    return {
        "journal": str(session.journal.folder),
        "sound": all(damage.settled for damage in found),
        "damaged": damaged,
        "leftovers": [{"path": str(one.path), "bytes": one.size} for one in left],
    }


def _name_of(session: Invocation, one: Leftover) -> str:
    """Return a leftover's path, below the journal if it is there."""
    folder = session.journal.folder
    return str(one.path.relative_to(folder) if one.path.is_relative_to(folder) else one.path)


def _state(damage: Damage) -> str:
    return "settled" if damage.settled else "damaged"
