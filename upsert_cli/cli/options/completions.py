"""The values that a shell offers for task ids, collections and models.

A shell waits for them at each press of Tab: only the newest tasks are read, nothing heavy is loaded, and an error in
the journal offers nothing, since a message would appear in the middle of the typed line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.layout import LATEST
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.paths import expanded, state_folder
from upsert_cli.text import safe

NEWEST_TASKS = 500  # tasks that are read: one or two files of the journal, 20 ms
MAX_OFFERED = 100  # candidates; a shell asks before it shows more

_PLAIN = re.compile(r"[\w./@+-]+", re.ASCII)  # the scripts insert a name unquoted, so no other is offered

USEFUL_STATUSES = {
    "cancel": (TaskStatus.PENDING, TaskStatus.PROCESSING),
    "verify": (TaskStatus.DONE,),
}
"""The states of tasks that a command acts on; other commands act on any task."""


def task_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the newest tasks in a state that the command acts on, and `latest`."""
    useful = USEFUL_STATUSES.get(ctx.info_name or "", tuple(TaskStatus))
    if (journal := _journal(ctx)) is None:
        return []
    newest = _newest(journal)
    fitting = [task for task in newest if task.status in useful and task.id.startswith(incomplete)]
    offered = [CompletionItem(task.id, help=_about(journal, task)) for task in fitting[:MAX_OFFERED]]
    takes_latest = isinstance(param, click.Argument) and LATEST.startswith(incomplete)  # `run --task-id` does not
    if takes_latest and newest and newest[0].status in useful:
        offered.append(CompletionItem(LATEST, help=f"the newest task: {newest[0].id}"))
    return offered


def collections(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the collections of the newest tasks."""
    return _offered((task.collection for task in _newest(_journal(ctx))), incomplete)


def models(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the default model, the models of the newest tasks and, for commands that make records, `none`."""
    from upsert_cli.embedding.catalog import DEFAULT_MODEL, NO_MODEL

    none = [NO_MODEL] if ctx.info_name in ("run", "preview") else []
    return _offered([DEFAULT_MODEL, *none, *(task.model for task in _newest(_journal(ctx)))], incomplete)


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell offer files."""
    return [CompletionItem(incomplete, type="file")]


def folders(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell offer folders."""
    return [CompletionItem(incomplete, type="dir")]


def _journal(ctx: click.Context) -> Journal | None:
    given = ctx.params.get("journal")
    try:
        folder = expanded(given) if isinstance(given, Path) else state_folder()
    except UpsertCliError:
        return None
    return None if folder is None else Journal(folder)


def _newest(journal: Journal | None) -> list[Task]:
    try:
        return [] if journal is None else journal.list(limit=NEWEST_TASKS)
    except UpsertCliError:
        return []


def _offered(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Offer each of the names once, if it begins with the typed characters."""
    fitting = (name for name in dict.fromkeys(names) if name.startswith(incomplete) and _PLAIN.fullmatch(name))
    return [CompletionItem(name) for name in fitting]


def _about(journal: Journal, task: Task) -> str:
    task = journal.with_runner(task)
    about = f"{task.shown_state}: {task.counts.read} rows into {safe(task.collection)}"
    return about.replace(",", " ")  # the script for fish would cut it at a comma
