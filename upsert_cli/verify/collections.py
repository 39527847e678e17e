"""The collections of a target, each with its model and the task that loaded it last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.store.locations import location_at
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


def _last_tasks(journal: Journal, chroma: str, wanted: set[str]) -> Iterator[tuple[str, Task]]:
    """Yield the newest task of each collection, and read no more of the journal than that takes."""
    tasks = journal.newest_first()
    while wanted and (task := next(tasks, None)) is not None:
        # A refused task has written nothing.
        began = task.started_at is not None and task.status is not TaskStatus.REFUSED
        if began and task.chroma == chroma and task.collection in wanted:
            wanted.remove(task.collection)
            yield task.collection, task
