"""`--delete-missing`: the search for the records of a scope that the sources no longer hold, and their deletion.

The search runs before anything is written, so that a wrong file is refused in time. The records are listed, and deleted
once all rows are loaded and none was rejected. The list survives a crash, like the checkpoint. A record is kept if it
changed since it was listed, for example by another load.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from upsert_cli.context import RunContext
from upsert_cli.documents.hashing import owner_of
from upsert_cli.errors import JournalDamaged, Refusal, UpsertCliError
from upsert_cli.journal.rejects import JsonLines, read_json_lines
from upsert_cli.load.commit import Committer
from upsert_cli.load.resources import Resources
from upsert_cli.pipeline.id_set import IdSet
from upsert_cli.pipeline.prefetch import prefetch
from upsert_cli.sources.item import Item
from upsert_cli.sources.rows import Rows
from upsert_cli.store.base import RecordRef, Store

SEARCH_ROWS = 1_000  # ids per transaction and records per request; more gain nothing
DELETE_ROWS = 500  # records per request, half a second of CPU, which nothing interrupts


@dataclass(slots=True, kw_only=True)
class OrphanSearch:
    """A search for the records of a scope whose items are not in the sources, with its counts."""

    rows: Rows
    scope: str

    items: int = 0
    """Rows of the sources that have an id."""

    held: int = 0
    """Records of the scope."""

    missing: int = 0
    """Records of the scope that the sources do not hold."""

    has_unreadable_row: bool = False
    """Whether a row has no id. It may stand for any record, so no record is missing then."""

    def run(self, store: Store) -> Iterator[list[RecordRef]]:
        """Yield the missing records, in blocks that may be empty; the search can stop after each block.

        Raises:
            UpsertCliError: The temporary folder has no room for the ids.
            SourceUnreadable: A source broke off or cannot be read any further.
        """
        with closing(IdSet()) as ids:
            read = self._ids()
            while block := list(itertools.islice(read, SEARCH_ROWS)):
                ids.add(block)
                yield []  # only a chance to stop
            if self.has_unreadable_row:
                return
            start = 0
            while True:
                rows, members = store.members(self.scope, start=start, rows=SEARCH_ROWS)
                if not rows:
                    return
                start += rows
                missing = [member for member in members if _item_of(member) not in ids]
                self.held += len(members)
                self.missing += len(missing)
                yield missing

    def _ids(self) -> Iterator[str]:
        for row, _ in self.rows:
            if not isinstance(row, Item):
                self.has_unreadable_row = True
                return
            self.items += 1
            yield row.object_id


def find_orphans(
    resources: Resources, store: Store, *, context: RunContext, is_dry_run: bool = False
) -> Iterator[list[RecordRef]]:
    """Yield the records to delete, in blocks; none if a row of the sources cannot be read.

    The task of a dry run is not in the journal, so the remedies of errors do not restart it.

    Raises:
        Refusal: There are more records to delete than the user allows, or the sources hold no item.
        SourceUnreadable: A source broke off.
    """
    task, options = resources.task, resources.task.options
    search = OrphanSearch(rows=resources.rows, scope=options.scope or "")
    with closing(prefetch(search.run(store), stopping=threading.Event(), wait=context.check)) as found:
        yield from filter(None, found)
    records = f"records of the scope {search.scope} in the collection {task.collection}"
    if search.missing and not search.items:
        raise Refusal(
            message=f"the sources hold no item, and all {search.held:,} {records} would be deleted, which is never "
            f"done; look at the sources, or load without --delete-missing"
        )
    if options.exceeds_max_delete(search.missing, search.held):
        restart = f"`upsert-cli restart {task.id} --max-delete {search.missing}` deletes them"
        remedy = f"--max-delete {search.missing} allows it" if is_dry_run else restart
        raise Refusal(
            message=f"{search.missing:,} of the {search.held:,} {records} are not in the sources any more, more "
            f"than --max-delete {options.max_delete} allows, so nothing was written; --dry-run --max-delete 100% "
            f"names the first of them, and if all is as it should be, {remedy}"
        )


def list_orphans(committer: Committer, resources: Resources, store: Store, *, is_empty: bool) -> None:
    """List the records to delete, without a search if the collection is empty; see `find_orphans` about the errors."""
    if is_empty:
        committer.listed(0)
        return
    context = committer.context
    context.info("looking for records that the sources no longer hold")
    missing = 0
    with JsonLines.rewriting(committer.files.missing) as orphans:
        for block in find_orphans(resources, store, context=context):
            orphans.append(block)
            missing += len(block)
    committer.listed(missing)
    if missing:
        context.info(f"{missing:,} records are to be deleted once all rows are loaded")


def delete_orphans(committer: Committer, resources: Resources, store: Store) -> None:
    """Delete the listed records in blocks, and commit each block; delete none if a row was rejected.

    Raises:
        UpsertCliError: A source has changed since it was searched.
        JournalDamaged: The list cannot be read, or is not complete.
    """
    context = committer.context
    if failed := committer.checkpoint.counts.failed:
        items = "item was" if failed == 1 else "items were"
        context.warning(f"nothing was deleted, since {failed:,} {items} rejected, and each may stand for any record")
        return
    restart = f"`upsert-cli restart {committer.task.id} --from-start`"
    for source in resources.sources:
        if (change := source.change()) is not None:
            raise UpsertCliError(
                message=f"{source.name} changed while it was being read ({change}), so nothing was deleted; "
                f"{restart} reads it again"
            )
    start, missing = committer.checkpoint.unlisted, committer.checkpoint.missing or 0
    listed = read_json_lines(committer.files.missing, _orphan)
    left = (orphan for orphan, _ in itertools.islice(listed, start, missing))
    while block := list(itertools.islice(left, DELETE_ROWS)):
        context.check()
        context.progress.stage = "deleting"
        context.progress.counts = committer.checkpoint.counts
        context.show_now()
        with context.progress.busy("deleting"), context.writing():
            changed = store.delete(block)
        committer.deleted(len(block), changed=len(changed))
    if (deleted := committer.checkpoint.unlisted) != missing:
        reason = f"it holds {deleted} records of {missing}; {restart} makes it again"
        raise JournalDamaged(path=str(committer.files.missing), reason=reason)


def _orphan(value: object) -> RecordRef | None:
    """Return the record in a value of the list, or None if the value has the wrong shape."""
    match value:
        case [str(identifier), str(hashed)]:
            return RecordRef(identifier, hashed)
    return None


def _item_of(member: RecordRef) -> str:
    """Return the id of the item to which a record belongs."""
    owner = owner_of(member.id, member.hash)
    return member.id if owner is None else owner[0]
