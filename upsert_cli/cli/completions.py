"""The journal -> what a shell offers when a task's id, a collection or a model is being typed.

A shell waits for this at each press of Tab: only the newest tasks are looked at, nothing heavy is loaded, and whatever
is wrong with a journal offers nothing rather than a message in the middle of what is being typed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from upsert_cli.cli.task_text import state_of
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.journal.task_ids import LATEST
from upsert_cli.paths import expanded, state_folder
from upsert_cli.text import safe

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOKED_AT = 500  # of the newest tasks, one or two files of the journal: 20 ms
OFFERED = 100  # candidates; a shell asks before it shows more

_PLAIN = re.compile(r"[\w./@+-]+", re.ASCII)  # the scripts insert a name as it is, so no other is offered

# The states in which a command can do something with a task; the others take any.
USEFUL = {
    "cancel": (TaskStatus.PENDING, TaskStatus.PROCESSING),
    "verify": (TaskStatus.DONE,),
}


def task_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the ids of the newest tasks that the command can do something with, and the word for the newest one."""
    useful = USEFUL.get(ctx.info_name or "", tuple(TaskStatus))
    if (journal := _journal(ctx)) is None:
        return []
    newest = _newest(journal)
    fitting = (task for task in newest if task.status in useful and task.id.startswith(incomplete))
    offered = [
        CompletionItem(task.id, help=_about(journal, task)) for task, _ in zip(fitting, range(OFFERED), strict=False)
    ]
    is_wanted = isinstance(param, click.Argument) and LATEST.startswith(incomplete)  # no task can be made under it
    if is_wanted and newest and newest[0].status in useful:
        offered.append(CompletionItem(LATEST, help=f"the newest task: {newest[0].id}"))
    return offered


def collections(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offers the collections that were loaded into."""
    return _different((task.collection for task in _newest(_journal(ctx))), incomplete)


def models(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offers the models that were loaded with, and the default."""
    from upsert_cli.embedding.catalog import DEFAULT_MODEL

    return _different([DEFAULT_MODEL, *(task.model for task in _newest(_journal(ctx)))], incomplete)


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leaves it to the shell, which knows the files."""
    return [CompletionItem(incomplete, type="file")]


def folders(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leaves it to the shell, which knows the folders."""
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
        return [] if journal is None else journal.list(limit=LOOKED_AT)
    except UpsertCliError:
        return []


def _different(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    fitting = (name for name in dict.fromkeys(names) if name.startswith(incomplete) and _PLAIN.fullmatch(name))
    return [CompletionItem(name) for name in fitting]


def _about(journal: Journal, task: Task) -> str:
    task, running = journal.with_runner(task)
    # Without a comma, at which the script for fish would cut it.
    return f"{state_of(task, running=running)}: {task.counts.read} rows into {safe(task.collection)}".replace(",", " ")
