"""Rejected rows that a later good row has superseded, so that a retry does not bring them back.

A retry reads only the rejected rows, out of their order: a later row of the same id may already be in the collection.
One pass over the sources before the retry finds the last good row of each id.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from upsert_cli.pipeline.id_set import digest_of, scratch, scratch_database
from upsert_cli.pipeline.prefetch import StageStopped
from upsert_cli.sources.item import Item, Reject
from upsert_cli.sources.rows import Rows

BLOCK_ROWS = 1_000  # ids looked up in one transaction; more gain nothing

Superseded: TypeAlias = Callable[[Item], bool]
"""Return whether a later good row has the same id and is not retried itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A rejected row that is read again."""

    source: str
    row: int
    object_id: object
    """Any JSON value if the row has no valid id."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rejected:
        """Read a record of the rejects file."""
        return cls(source=value["source"], row=value["row"], object_id=value["object_id"])


def nothing_superseded(_: Item) -> bool:
    """Return False, which is right if all rows are read in their order."""
    return False


@contextmanager
def superseded_by_later_rows(
    rows: Rows, *, rejected: Callable[[], Iterable[Rejected]], stopping: threading.Event
) -> Iterator[Superseded]:
    """Yield a function that tells whether a retried row is superseded; reads the sources unless no id is known.

    Args:
        rows: The sources of the retry; all of their rows are read.
        rejected: Returns all rows of the retry, including committed ones, in the order of the sources.
        stopping: Set by any thread to end the pass early.

    Raises:
        UpsertCliError: The temporary folder has no room for the ids.
        SourceUnreadable: A file broke off or cannot be read any further.
        StageStopped: `stopping` was set.
    """
    places = {source.name: place for place, source in enumerate(rows.sources)}
    with closing(_Ids()) as ids:
        ids.expect(each.object_id for each in rejected() if isinstance(each.object_id, str))
        if ids.known:
            everything = (row for row, _ in rows.all())
            for block in _blocks(_others(everything, rejected())):
                if stopping.is_set():
                    raise StageStopped
                ids.seen((row.object_id, places[row.source], row.row) for row in block if row is not None)
        yield lambda item: ids.last(item.object_id) > (places[item.source], item.row)


class _Ids:
    """The last row of each id in a set, kept in a temporary database."""

    def __init__(self) -> None:
        self._database = scratch_database()
        self._database.execute("CREATE TABLE ids (id BLOB PRIMARY KEY, source INTEGER, row INTEGER) WITHOUT ROWID")
        self.known = 0

    def expect(self, ids: Iterable[str]) -> None:
        """Add ids to the set."""
        self.known += self._run("INSERT OR IGNORE INTO ids VALUES (?, -1, 0)", ((digest_of(each),) for each in ids))

    def seen(self, places: Iterable[tuple[str, int, int]]) -> None:
        """Record the rows of ids, in their order; ids outside the set are skipped."""
        rows = ((source, row, digest_of(each)) for each, source, row in places)
        self._run("UPDATE ids SET source = ?, row = ? WHERE id = ?", rows)

    def last(self, identifier: str) -> tuple[int, int]:
        """Return source and row of the last row of an id; a value before all rows if it has none."""
        with scratch():
            found = self._database.execute("SELECT source, row FROM ids WHERE id = ?", (digest_of(identifier),))
            source, row = found.fetchone() or (-1, 0)
        return source, row

    def close(self) -> None:
        self._database.close()

    def _run(self, statement: str, rows: Iterable[tuple[object, ...]]) -> int:
        with scratch(), self._database:
            return self._database.executemany(statement, rows).rowcount


def _others(rows: Iterator[Item | Reject], rejected: Iterable[Rejected]) -> Iterator[Item | None]:
    """Yield the items that are not retried, and None for each other row, so that the consumer can stop in time."""
    retried = iter(rejected)
    following = next(retried, None)
    for row in rows:
        if following is not None and (row.source, row.row) == (following.source, following.row):
            following = next(retried, None)
            yield None
        else:
            yield row if isinstance(row, Item) else None


def _blocks(rows: Iterator[Item | None]) -> Iterator[list[Item | None]]:
    while block := list(itertools.islice(rows, BLOCK_ROWS)):
        yield block
