"""The collections of a target, each with its model and the task that loaded it last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from upsert_cli.context import RunContext
from upsert_cli.errors import Refusal, UpsertCliError
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.leases import Holder
from upsert_cli.load.renames import complete_renames, followed_by_tasks
from upsert_cli.store.address import remedy_for_name, require_collection_name
from upsert_cli.store.locate import location_at
from upsert_cli.store.location import Location
from upsert_cli.store.process import StoreProcess
from upsert_cli.store.target import UNNAMED, CollectionInfo, Target
from upsert_cli.text import nearest


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
    loaded = last_tasks(journal, chroma, {one.name: one.named_model for one, _ in found})
    return [
        CollectionSummary(
            name=one.name,
            records=records,
            dimension=one.dimension,
            model=one.named_model,
            task=loaded.get(one.name),
        )
        for one, records in found
    ]


def last_tasks(journal: Journal, chroma: str, models: Mapping[str, str | None]) -> dict[str, Task]:
    """Return the newest task of each collection, and read no more of the journal than that takes.

    `models` has the model that each collection names: a task with another one filled a collection that had the name.
    """
    found: dict[str, Task] = {}
    tasks = journal.newest_first()
    while len(found) < len(models) and (task := next(tasks, None)) is not None:
        name = task.collection
        is_asked_for = task.chroma == chroma and name in models and name not in found and _has_written(task)
        if is_asked_for and (models[name] or task.model).lower() == task.model.lower():
            found[name] = task
    return found


def other_load(journal: Journal, task: Task) -> Task | None:
    """Return a task that loaded a task's collection from other sources: the next older one, or else the newest."""
    loads = [
        one
        for one in journal.newest_first()
        if (one.chroma, one.collection) == (task.chroma, task.collection)
        and (one.id == task.id or (one.sources != task.sources and _has_written(one)))
    ]
    at = next(number for number, one in enumerate(loads) if one.id == task.id)
    return next(iter(loads[at + 1 :] + loads[:at]), None)


def _has_written(task: Task) -> bool:
    """Check that a task may have written records; a refused one has written nothing."""
    return task.started_at is not None and task.status is not TaskStatus.REFUSED


def delete_collection(journal: Journal, chroma: str, name: str, *, context: RunContext) -> int:
    """Delete a collection, and return the number of records that it held; tasks in the journal stay as they are.

    Args:
        journal: Knows the leases on collections of servers.
        chroma: As `canonical_target` spells it.
        name: The collection.
        context: Receives messages about retries.

    Raises:
        TargetInUse: A load has the folder, or the collection of a server.
        Refusal: Another program has the folder open.
        UpsertCliError: The collection does not exist.
    """
    location = location_at(chroma, name, leases=journal.layout.servers)
    if (info := location.describe()) is None:
        raise no_collection(chroma, name, undone="deleted")
    with opened(_whole(journal, chroma, info), context=context, location=location) as store:
        return store.drop()


def rename_collection(
    journal: Journal, chroma: str, name: str, to: str, *, replaces: bool, context: RunContext
) -> tuple[int, str | None]:
    """Rename a collection, and let the unfinished tasks of this journal follow it.

    A death at any moment leaves every collection whole under some name, and a second call completes the renaming. A
    task never continues in another collection than the one that it began to fill.

    Args:
        journal: Knows the tasks, and the leases on collections of servers.
        chroma: As `canonical_target` spells it.
        name: The collection.
        to: Its new name.
        replaces: Keep a collection that has the new name under another one.
        context: Receives messages about retries.

    Returns:
        The number of its records, and the new name of the collection that had the name before, if there was one.

    Raises:
        UsageFault: Chroma does not accept the new name.
        TargetInUse: A load has the folder, or one of the collections of a server.
        Refusal: Another program has the folder open, or there is a collection of the new name.
        UpsertCliError: The collection does not exist.
    """
    require_collection_name(to)
    leases = journal.layout.servers
    location, place = (location_at(chroma, each, leases=leases) for each in (name, to))
    completed = complete_renames(journal, chroma, check=context.check)
    died = next((note for note in completed if (note.name, note.to) == (name, to)), None)
    if (info := location.describe()) is None:
        state = place.state()
        if died is not None and state is not None and state.id == died.collection:
            return state.records, died.kept
        raise no_collection(chroma, name, undone="renamed")
    kept = _name_aside(location, to, replaces=replaces)  # before the collection is opened, which may take a while
    target = _whole(journal, chroma, info)
    with opened(target, context=context, location=location) as store, ExitStack() as held:
        if location.is_shared:  # the lease of a folder covers all of its collections
            held.enter_context(place.take_lease(Holder.this_process()))
        kept = _name_aside(location, to, replaces=replaces)
        with followed_by_tasks(journal, chroma, name, to, kept=kept):
            records = store.rename(to, aside=kept)
    if kept is None and died is not None:
        kept = died.kept
    return records, kept


def _name_aside(location: Location, name: str, *, replaces: bool) -> str | None:
    """Return a free name for a collection that is to be replaced, or None if there is no such collection.

    Raises:
        Refusal: There is one, and it is not to be replaced.
        UsageFault: Its name has no room for a time.
    """
    taken = {info.name for info, _ in location.list_collections()}
    if name not in taken:
        return None
    if not replaces:
        raise Refusal(
            message=f"there is a collection {name} already, so nothing was renamed; --replace keeps it under another "
            f"name"
        )
    base = f"{name}.before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    free = next(each for each in (base, *(f"{base}-{number}" for number in range(2, 99))) if each not in taken)
    require_collection_name(free)
    return free


def _whole(journal: Journal, chroma: str, info: CollectionInfo) -> Target:
    """Return a collection to rename or delete as a whole."""
    return Target(
        path=chroma,
        collection=info.name,
        model=replace(UNNAMED, dimension=info.dimension or 0),
        as_found=True,
        as_a_whole=True,
        leases=str(journal.layout.servers),
    )


@contextmanager
def opened(
    target: Target, *, context: RunContext, task_id: str | None = None, location: Location | None = None
) -> Iterator[StoreProcess]:
    """Open a collection unchanged, with a warning if that upgrades its folder, and close it at the end."""
    with StoreProcess(target, task_id=task_id, context=context, location=location) as store:
        if not target.reads_only and (warning := store.opened().upgrade) is not None:
            context.warning(warning)
        yield store


def no_collection(chroma: str, name: str, *, known: Sequence[str] = (), undone: str = "") -> UpsertCliError:
    """Return the error for a collection that does not exist; `undone` is the work that it was for."""
    close = nearest(name, known)
    question = "" if close is None else f" did you mean {close}?"
    nothing = f", so nothing was {undone}" if undone else ""
    return UpsertCliError(
        message=f"there is no collection {name} in {chroma}{nothing};{question} {remedy_for_name(chroma)}"
    )
