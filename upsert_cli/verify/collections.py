"""The collections of a target: their list, with the last load of each, and how to rename and delete one."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from upsert_cli.context import RunContext
from upsert_cli.errors import Refusal
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import Task
from upsert_cli.leases import Holder
from upsert_cli.load.renames import complete_renames, followed_by_tasks
from upsert_cli.store.address import require_collection_name
from upsert_cli.store.locate import location_at, no_collection
from upsert_cli.store.location import Location
from upsert_cli.store.process import open_as_found
from upsert_cli.store.target import UNNAMED, CollectionInfo, Target
from upsert_cli.verify.subject import newest_loads


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSummary:
    """A collection of a target, with the task that loaded it last."""

    info: CollectionInfo
    records: int
    task: Task | None
    """The newest task of the journal that loaded the collection, or None."""

    def as_json(self) -> dict[str, Any]:
        """Return the collection as plain data."""
        task = self.task
        fields = None if task is None else {"id": task.id, "status": task.status, "finished_at": task.finished_at}
        return {
            "collection": self.info.name,
            "records": self.records,
            "dimension": self.info.dimension,
            "model": self.info.named_model,
            "task": fields,
        }


def collections_at(journal: Journal, chroma: str) -> list[CollectionSummary]:
    """Return the collections of a target by name, without a lock, so that this works while a load runs.

    Args:
        journal: The journal with the tasks that may have loaded the collections.
        chroma: The target in the spelling of `canonical_target`.

    Raises:
        UpsertCliError: There is no Chroma in the folder, the folder cannot be read, or the server does not answer.
    """
    found = location_at(chroma, "", leases=journal.layout.servers).list_collections()
    loads = newest_loads(journal, chroma, {info.name: info.named_model for info, _ in found})
    return [CollectionSummary(info=info, records=records, task=loads.get(info.name)) for info, records in found]


def delete_collection(journal: Journal, chroma: str, name: str, *, context: RunContext) -> int:
    """Delete a collection, and return the number of its records; its tasks stay in the journal.

    Args:
        journal: The journal with the leases on collections of servers.
        chroma: The target in the spelling of `canonical_target`.
        name: The collection.
        context: Receives messages about retries.

    Raises:
        TargetInUse: A load holds the lease of the folder, or of the collection on a server.
        Refusal: Another program has the folder open.
        UpsertCliError: The collection does not exist.
    """
    location = location_at(chroma, name, leases=journal.layout.servers)
    if (info := location.describe()) is None:
        raise no_collection(chroma, name, undone="deleted")
    with open_as_found(_whole(journal, chroma, info), context=context, location=location) as store:
        return store.drop()


def rename_collection(
    journal: Journal, chroma: str, name: str, to: str, *, replaces: bool, context: RunContext
) -> tuple[int, str | None]:
    """Rename a collection, and let the unfinished tasks of the journal follow it.

    If the process dies, every collection is whole under some name, and a second call completes the rename. A task
    continues only in the collection that it began to fill.

    Args:
        journal: The journal with the tasks, and with the leases on collections of servers.
        chroma: The target in the spelling of `canonical_target`.
        name: The collection.
        to: Its new name.
        replaces: Whether a collection with the new name is kept under another name.
        context: Receives messages about retries.

    Returns:
        The number of records, and the other name of the collection that had the new name before, or None.

    Raises:
        UsageFault: Chroma does not accept the new name.
        TargetInUse: A load holds the lease of the folder, or of one of both collections on a server.
        Refusal: Another program has the folder open, or a collection has the new name already.
        UpsertCliError: The collection does not exist.
    """
    require_collection_name(to)
    leases = journal.layout.servers
    location, renamed = location_at(chroma, name, leases=leases), location_at(chroma, to, leases=leases)
    completed = complete_renames(journal, chroma, check=context.check)
    earlier = next((note for note in completed if (note.name, note.to) == (name, to)), None)
    if (info := location.describe()) is None:
        state = renamed.state()
        if earlier is not None and state is not None and state.id == earlier.collection:
            return state.records, earlier.kept
        raise no_collection(chroma, name, undone="renamed")
    _name_aside(location, to, replaces=replaces)  # refuses before the collection is opened, which may take a while
    target = _whole(journal, chroma, info)
    with open_as_found(target, context=context, location=location) as store, ExitStack() as held:
        if location.is_shared:  # the lease of a folder covers all of its collections
            held.enter_context(renamed.take_lease(Holder.this_process()))
        kept = _name_aside(location, to, replaces=replaces)
        with followed_by_tasks(journal, chroma, name, to, kept=kept):
            records = store.rename(to, aside=kept)
    if kept is None and earlier is not None:
        kept = earlier.kept
    return records, kept


def _name_aside(location: Location, name: str, *, replaces: bool) -> str | None:
    """Return a free name under which to keep the collection with a name, or None if no collection has the name.

    Raises:
        Refusal: A collection has the name, and is not to be replaced.
        UsageFault: Its name is too long for an added time.
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
    free, number = base, 1
    while free in taken:
        number += 1
        free = f"{base}-{number}"
    require_collection_name(free)
    return free


def _whole(journal: Journal, chroma: str, info: CollectionInfo) -> Target:
    """Return the target to rename or delete a collection as a whole."""
    return Target(
        path=chroma,
        collection=info.name,
        model=replace(UNNAMED, dimension=info.dimension or 0),
        as_found=True,
        as_a_whole=True,
        leases=str(journal.layout.servers),
    )
