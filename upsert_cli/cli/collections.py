"""The commands `collections list`, `rename` and `delete`; `collections` alone lists."""

from __future__ import annotations

import shlex

import click

from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.tables import Column, print_table, shown_time
from upsert_cli.cli.options.command import Group
from upsert_cli.cli.options.option import json_option, option
from upsert_cli.cli.options.shared_options import CHROMA_OPTION, collection_argument
from upsert_cli.verify.collections import CollectionSummary, collections_at, delete_collection, rename_collection

_COLUMNS = (
    Column("COLLECTION"),
    Column("RECORDS", number=True),
    Column("DIMENSION", number=True),
    Column("TASK"),
    Column("STATUS"),
    Column("FINISHED", order=1, widths=(7,)),
    Column("MODEL", order=2, widths=(18, 8), keep="end"),
)


@click.group(cls=Group, alone="list")
def collections() -> None:
    """List, rename and delete the collections of a target.

    Without a command it lists them.

    \b
    upsert-cli collections --chroma ./chroma
    upsert-cli collections rename articles-new articles --replace
    upsert-cli collections delete trial --yes
    """


@collections.command("list")
@CHROMA_OPTION
@json_option("Print a JSON array.")
def list_collections(session: Session, *, chroma: str, json: bool) -> None:
    """List the collections of a target and the latest loads.

    The task is the newest of this journal. Works during a load.
    """
    found = collections_at(session.journal, chroma)
    if json:
        session.print_json([summary.as_json() for summary in found])
        return
    print_table(session.terminal, _COLUMNS, [_row(session, summary) for summary in found])


def _row(session: Session, summary: CollectionSummary) -> tuple[str, ...]:
    of_task: tuple[str, ...] = ("", "", "")
    if summary.task is not None:
        task = session.journal.with_runner(summary.task)
        of_task = (task.id, task.shown_state, shown_time(task.finished_at or "", short=True))
    info = summary.info
    return (info.name, str(summary.records), str(info.dimension or ""), *of_task, info.named_model or "")


@collections.command()
@collection_argument("old")
@collection_argument("new")
@CHROMA_OPTION
@option("--replace", is_flag=True, help="Rename a collection NEW to NEW.before-TIME first.")
@json_option("Print the outcome as JSON.")
def rename(session: Session, *, old: str, new: str, chroma: str, replace: bool, json: bool) -> None:
    """Rename a collection.

    Refuses a target in use, and an existing NEW unless --replace is given. After a crash, run the same command again.

    \b
    upsert-cli collections rename articles-new articles --replace
    """
    if old == new:
        raise click.UsageError(f"{old} has that name already; NEW has to be another one.")
    records, kept = rename_collection(session.journal, chroma, old, new, replaces=replace, context=session)
    if json:
        session.print_json({"collection": new, "chroma": chroma, "renamed": old, "records": records, "kept": kept})
        return
    session.info(f"renamed the collection {old} of {chroma} to {new}, with {records:,} records")
    if kept is not None:
        session.info(
            f"the former {new} is {kept} now; `upsert-cli collections delete {kept} --chroma "
            f"{shlex.quote(chroma)} --yes` deletes it"
        )


@collections.command()
@collection_argument("name")
@CHROMA_OPTION
@option("--yes", is_flag=True, help="Confirm the deletion, which is final.")
@json_option("Print the number of deleted records as JSON.")
def delete(session: Session, *, name: str, chroma: str, yes: bool, json: bool) -> None:
    """Delete a collection with all its records.

    Never asks: without --yes it exits with 2. A target that a load or another program uses is refused. The tasks that
    loaded into the collection stay in the journal; `upsert-cli restart TASK_ID --from-start` loads it again.
    """
    if not yes:
        raise click.UsageError(f"deleting the collection {name} is final; --yes confirms it.")
    records = delete_collection(session.journal, chroma, name, context=session)
    if json:
        session.print_json({"collection": name, "chroma": chroma, "records": records})
    else:
        session.info(f"deleted the collection {name} of {chroma} with {records:,} records")
