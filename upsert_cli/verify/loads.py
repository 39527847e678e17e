"""The tasks of a journal that loaded a collection, and the commands that load their rows again."""

from __future__ import annotations

from collections.abc import Mapping

from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task, TaskStatus


def newest_loads(journal: Journal, chroma: str, models: Mapping[str, str | None]) -> dict[str, Task]:
    """Return the newest task that loaded each collection of a target; the journal is read no further than needed.

    `models` has the model that each collection names. A task with another model filled an earlier collection of the
    same name.
    """
    found: dict[str, Task] = {}
    tasks = journal.newest_first()
    while len(found) < len(models) and (task := next(tasks, None)) is not None:
        name = task.collection
        if task.chroma != chroma or name not in models or name in found or not _has_written(task):
            continue
        if (models[name] or task.model).lower() == task.model.lower():
            found[name] = task
    return found


def other_load(journal: Journal, task: Task) -> Task | None:
    """Return a task that loaded a task's collection from other sources: the next older one, or else the newest."""
    target = (task.chroma, task.collection)
    same_target = [each for each in journal.newest_first() if (each.chroma, each.collection) == target]
    ids = [each.id for each in same_target]
    first_older = ids.index(task.id) + 1 if task.id in ids else 0
    for load in (*same_target[first_older:], *same_target[:first_older]):
        if load.sources != task.sources and _has_written(load):
            return load
    return None


def repair_by_task(task: Task) -> str:
    """Return the command that loads the missing rows of a task, and corrects wrong ones if the task is done."""
    return f"upsert-cli {'verify --repair' if task.status is TaskStatus.DONE else 'restart'} {task.id}"


def _has_written(task: Task) -> bool:
    """Check that a task may have written records."""
    return task.started_at is not None and task.status is not TaskStatus.REFUSED
