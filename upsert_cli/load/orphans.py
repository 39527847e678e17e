"""What a task deletes: the records of its scope that its sources no longer hold.

They are found before anything is written, so that what is too much is refused in time; then they are listed, and
deleted once all rows are loaded and none was rejected. The list survives a crash as the checkpoint does; a record that
changed since it was listed, by another load say, is left alone.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from upsert_cli.errors import JournalDamaged, NothingToKeep, SourceMovedOn, SourceUnreadable, TooManyToDelete
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.orphan_list import OrphanList
from upsert_cli.journal.task import Task
from upsert_cli.load.commit import Committer
from upsert_cli.pipeline.orphan_search import OrphanSearch, RecordLister
from upsert_cli.pipeline.prefetch import run_ahead
from upsert_cli.sources.source import Source
from upsert_cli.store.base import RecordRef

BLOCK_ROWS = 500  # records a request, which nothing interrupts: half a second of CPU


@dataclass(slots=True, kw_only=True)
class Deletion:
    """The deletions of one task."""

    task: Task
    options: LoadOptions
    sources: Sequence[Source]
    is_rehearsal: bool = False
    """The task is not in the journal, so it cannot be restarted."""

    broken: SourceUnreadable | None = None
    """Why the sources could not be searched; then nothing is deleted, and the load fails after the rows before."""

    def find(self, collection: RecordLister, *, wait: Callable[[], None]) -> Generator[list[RecordRef], None, None]:
        """Yields the records to delete, in blocks; none where a row of the sources cannot be read.

        Args:
            collection: As it is before the load.
            wait: Called in the waits of the calling thread; may raise to end the search.

        Raises:
            TooManyToDelete: They are more than the user allows.
            NothingToKeep: The sources hold nothing.
            SourceUnreadable: A source broke off.
        """
        options, ending = self.options, threading.Event()
        scope = options.scope or ""
        search = OrphanSearch(options.rows(self.sources), scope=scope)
        found = run_ahead(search.run(collection, ending), depth=1, ending=ending, wait=wait)
        with closing(found):
            yield from found
        place = {"collection": self.task.collection, "scope": scope}
        if search.missing and not search.items:
            raise NothingToKeep(held=search.held, **place)
        if options.exceeds_max_delete(search.missing, search.held):
            task_id = None if self.is_rehearsal else self.task.id
            raise TooManyToDelete(
                task_id=task_id, missing=search.missing, held=search.held, limit=options.max_delete, **place
            )

    def prepare(
        self,
        committer: Committer,
        collection: RecordLister,
        *,
        is_empty: bool,
        wait: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        """Lists what is to be deleted, unless an attempt before did so, or the collection is empty."""
        if committer.has_list:
            return
        if is_empty:
            committer.listed(0)
            return
        report("looking for records that the sources no longer hold")
        missing = 0
        try:
            with OrphanList.making(committer.missing_path) as listing:
                for block in self.find(collection, wait=wait):
                    listing.add(block)
                    missing += len(block)
        except SourceUnreadable as error:
            self.broken = error
            return
        committer.listed(missing)
        if missing:
            report(f"{missing:,} records are to be deleted once all rows are loaded")

    def carry_out(
        self,
        committer: Committer,
        delete: Callable[[Sequence[RecordRef]], Sequence[str]],
        *,
        between: Callable[[], None],
        warn: Callable[[str], None],
    ) -> None:
        """Deletes what is on the list, unless a row was rejected: what that one stands for may be any record.

        Args:
            committer: Tells how far an attempt before came, and is told of each block.
            delete: Deletes records, and returns the ids of those that it left since they have changed.
            between: Called before each block; may raise to leave the others undeleted.
            warn: Told why nothing is deleted.

        Raises:
            SourceUnreadable: They could not be searched.
            SourceMovedOn: The sources are not what was searched any more.
            JournalDamaged: The list cannot be read.
        """
        if self.broken is not None:
            raise self.broken
        if failed := committer.checkpoint.counts.failed:
            items = "item was" if failed == 1 else "items were"
            warn(f"nothing was deleted, since {failed:,} {items} rejected, and what they stand for may be any record")
            return
        for source in self.sources:
            if (change := source.change()) is not None:
                raise SourceMovedOn(task_id=self.task.id, name=source.name, how=change)
        for block in _blocks(committer):
            between()
            committer.deleted(len(block), changed=len(delete(block)))
        checkpoint = committer.checkpoint
        if checkpoint.unlisted != checkpoint.missing:
            reason = (
                f"it holds {checkpoint.unlisted} records of {checkpoint.missing}; "
                f"`upsert-cli restart {self.task.id} --from-start` makes it anew"
            )
            raise JournalDamaged(path=str(committer.missing_path), reason=reason)


def _blocks(committer: Committer) -> Iterator[list[RecordRef]]:
    """Yields what is still to be deleted."""
    checkpoint = committer.checkpoint
    if checkpoint.missing:
        left = OrphanList.read(committer.missing_path, start=checkpoint.unlisted)
        while block := [RecordRef(*one) for one in itertools.islice(left, BLOCK_ROWS)]:
            yield block
