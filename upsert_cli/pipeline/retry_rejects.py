"""Sources and rejected rows -> which of these a later good row has superseded, so that a retry does not bring it back.

A retry reads only the rows that were rejected, and so out of their order: a later row of the same id may be in the
collection since long. One pass over the sources before the retry finds the last such row of each id.
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
"""Tells whether a good row of the same id, which is not retried itself, stands behind this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A row that was rejected before and is to be read again."""

    source: str
    row: int
    object_id: object
    """Anything where the row has no valid id."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rejected:
        """Reads what `Reject.as_json` wrote."""
        return cls(source=value["source"], row=value["row"], object_id=value["object_id"])


def nothing_superseded(_: Item) -> bool:
    """Is the answer where all rows are read in their order."""
    return False


@contextmanager
def superseded_by_later_rows(
    rows: Rows, *, rejected: Callable[[], Iterable[Rejected]], stopping: threading.Event
) -> Iterator[Superseded]:
    """Yields what tells of a retried row whether it came too late; reads the sources for that, unless no id is known.

    Args:
        rows: The sources of the retry; all of their rows are read.
        rejected: Returns all rows of the retry, those as well that are settled, in the order of the sources.
        stopping: Set by anyone to end the pass early.

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
    """The last place of each of some ids, in a database that belongs to nobody else."""

    def __init__(self) -> None:
        self._database = scratch_database()
        self._database.execute("CREATE TABLE ids (id BLOB PRIMARY KEY, source INTEGER, row INTEGER) WITHOUT ROWID")
        self.known = 0

    def expect(self, ids: Iterable[str]) -> None:
        """Says which ids are of interest."""
        self.known += self._run("INSERT OR IGNORE INTO ids VALUES (?, -1, 0)", ((digest_of(each),) for each in ids))

    def seen(self, places: Iterable[tuple[str, int, int]]) -> None:
        """Says where ids stand, in the order of the rows; those of no interest are passed over."""
        rows = ((source, row, digest_of(each)) for each, source, row in places)
        self._run("UPDATE ids SET source = ?, row = ? WHERE id = ?", rows)

    def last(self, identifier: str) -> tuple[int, int]:
        """Returns source and row of the last place of an id; what is before all rows where it has none."""
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
    """Yields the rows that are not retried; None in place of others, so that whoever waits may end it in time."""
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
