"""The collections of a target, each with its model and the task that loaded it last."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from upsert_cli import __version__
from upsert_cli.context import RunContext
from upsert_cli.embedding.identity import ModelIdentity
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.store.base import Target
from upsert_cli.store.locations import location_at
from upsert_cli.store.process import StoreProcess
from upsert_cli.verify.expected import model_named


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSummary:
    """A collection of a target."""

    name: str
    records: int
    dimension: int | None
    """Of its vectors; None while it is empty."""

    model: str | None
    """As the collection names it; None if it names none."""

    task: Task | None
    """The newest task of this journal that loaded into it."""

    def as_json(self) -> dict[str, Any]:
        """Return the collection as plain data."""
        task = self.task
        fields = None if task is None else {"id": task.id, "status": task.status, "finished_at": task.finished_at}
        return {
            "collection": self.name,
            "records": self.records,
            "dimension": self.dimension,
            "model": self.model,
            "task": fields,
        }


def collections_at(journal: Journal, chroma: str) -> list[CollectionSummary]:
    """Return the collections of a target by name; nothing is locked, so this works while a load runs.

    Args:
        journal: The journal with the tasks that may have loaded them.
        chroma: As `canonical_target` spells it.

    Raises:
        UpsertCliError: There is no Chroma in the folder, it cannot be read, or the server does not answer.
    """
    found = location_at(chroma, "", leases=journal.layout.servers).list_collections()
    loaded = dict(_last_tasks(journal, chroma, {one.name for one, _ in found}))
    return [
        CollectionSummary(
            name=one.name,
            records=records,
            dimension=one.dimension,
            model=model_named(one),
            task=loaded.get(one.name),
        )
        for one, records in found
    ]


def delete_collection(journal: Journal, chroma: str, name: str, *, context: RunContext) -> int:
    """Delete a collection, and return the number of records that it held; tasks in the journal stay as they are.

    Args:
        journal: Knows the leases on collections of servers.
        chroma: As `locations.canonical_target` spells it.
        name: The collection.
        context: Receives messages about retries.

    Raises:
        TargetInUse: A load has the folder, or the collection of a server.
        Refusal: Another program has the folder open.
        UpsertCliError: The collection does not exist.
    """
    location = location_at(chroma, name, leases=journal.layout.servers)
    if (info := location.describe()) is None:
        raise UpsertCliError(
            message=f"there is no collection {name} in {chroma}, so nothing was deleted; `upsert-cli collections list "
            f"--chroma {shlex.quote(chroma)}` lists them"
        )
    target = Target(
        path=chroma,
        collection=name,
        model=ModelIdentity(name="", dimension=info.dimension or 0, max_tokens=0),
        tool_version=__version__,
        as_found=True,
        to_delete=True,
        leases=str(journal.layout.servers),
    )
    with StoreProcess(target, location=location, context=context) as store:
        for warning in store.opened().warnings:
            context.warning(warning)
        return store.drop()


def _last_tasks(journal: Journal, chroma: str, wanted: set[str]) -> Iterator[tuple[str, Task]]:
    """Yield the newest task of each collection, and read no more of the journal than that takes."""
    tasks = journal.newest_first()
    while wanted and (task := next(tasks, None)) is not None:
        # A refused task has written nothing.
        began = task.started_at is not None and task.status is not TaskStatus.REFUSED
        if began and task.chroma == chroma and task.collection in wanted:
            wanted.remove(task.collection)
            yield task.collection, task
