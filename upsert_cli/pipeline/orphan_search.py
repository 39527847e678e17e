"""Sources and a collection -> the records of a scope that the sources no longer hold.

All ids are read before anything is loaded, so what is too much to be deleted is refused before anything is written.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Protocol

from upsert_cli.documents.chunks import is_chunk, owner_of
from upsert_cli.pipeline.id_set import IdSet
from upsert_cli.pipeline.prefetch import StreamEnded
from upsert_cli.sources.item import Item
from upsert_cli.sources.rows import Rows
from upsert_cli.store.base import RecordRef, RecordRefPage

BLOCK_ROWS = 1_000  # rows a transaction and records a request; more gain nothing


class RecordLister(Protocol):
    """What is searched."""

    def members(self, scope: str, *, start: int, rows: int) -> RecordRefPage:
        """Returns the records of a scope among a run of records, or of a shorter one; none is the end."""


class OrphanSearch:
    """The search for the records of one scope, and what is known of them and of the sources once it has ended."""

    def __init__(self, rows: Rows, *, scope: str) -> None:
        """Reads nothing yet."""
        self._rows = rows
        self._scope = scope
        self.items = 0
        """Rows of the sources that have an id."""

        self.unreadable: tuple[str, int] | None = None
        """Source and row of the first that has none: what it stands for may be any record, so none is missing."""

        self.held = 0
        """Records of the scope."""

        self.missing = 0
        """Of these, records that the sources do not hold."""

    def run(self, collection: RecordLister, ending: threading.Event) -> Iterator[list[RecordRef]]:
        """Yields the records that are missing, in blocks.

        Args:
            collection: Nobody else writes to it meanwhile.
            ending: Set by anyone to end the search early.

        Raises:
            ScratchUnusable: There is no room for the ids.
            SourceUnreadable: A file broke off or cannot be read any further.
            StreamEnded: `ending` was set.
        """
        with closing(IdSet()) as ids:
            for block in self._ids():
                ids.add(block)
                _go_on(ending)
            if self.unreadable is not None:
                return
            start = 0
            while (page := collection.members(self._scope, start=start, rows=BLOCK_ROWS)).rows:
                _go_on(ending)
                start += page.rows
                missing = [member for member in page.members if _item_of(member) not in ids]
                self.held += len(page.members)
                self.missing += len(missing)
                if missing:
                    yield missing

    def _ids(self) -> Iterator[list[str]]:
        block: list[str] = []
        for row, _ in self._rows:
            if not isinstance(row, Item):
                self.unreadable = (row.source, row.row)
                return
            self.items += 1
            block.append(row.object_id)
            if len(block) >= BLOCK_ROWS:
                yield block
                block = []
        yield block


def _item_of(member: RecordRef) -> str:
    return owner_of(member.id)[0] if is_chunk(member.hash) else member.id


def _go_on(ending: threading.Event) -> None:
    if ending.is_set():
        raise StreamEnded
