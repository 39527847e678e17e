"""Rejected rows that a later good row has superseded, so that a retry does not bring them back.

A retry reads only the rejected rows, out of their order: a later row of the same id may already be in the collection.
One pass over the sources before the retry finds the last good row of each id.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, TypeAlias

from upsert_cli.pipeline.id_set import IdSet
from upsert_cli.pipeline.prefetch import StageStopped
from upsert_cli.sources.item import Item, Reject
from upsert_cli.sources.rows import Rows

BLOCK_ROWS = 1_000  # ids looked up in one transaction; more gain nothing

Superseded: TypeAlias = Callable[[Item], bool]
"""Return whether a later good row has the same id and is not retried itself."""

Rejected: TypeAlias = Callable[[], Iterable[Mapping[str, Any]]]
"""Return the records in the rejects file of all rows of a retry, including committed ones, in the order of the sources;
an `object_id` may be any JSON value."""


def nothing_superseded(_: Item) -> bool:
    """Return False, which is right if all rows are read in their order."""
    return False


@contextmanager
def superseded_by_later_rows(rows: Rows, *, rejected: Rejected, stopping: threading.Event) -> Iterator[Superseded]:
    """Yield a function that tells whether a retried row is superseded; reads all rows unless no id is known.

    Any thread may set `stopping` to end that early.

    Raises:
        UpsertCliError: The temporary folder has no room for the ids.
        SourceUnreadable: A file broke off or cannot be read any further.
        StageStopped: `stopping` was set.
    """
    places = {source.name: place for place, source in enumerate(rows.sources)}
    with closing(IdSet()) as ids:
        if ids.add(each["object_id"] for each in rejected() if isinstance(each["object_id"], str)):
            others = _others((row for row, _ in rows.all()), rejected())
            while block := list(itertools.islice(others, BLOCK_ROWS)):
                if stopping.is_set():
                    raise StageStopped
                ids.record((row.object_id, places[row.source], row.row) for row in block if row is not None)
        yield lambda item: ids.last(item.object_id) > (places[item.source], item.row)


def _others(rows: Iterator[Item | Reject], rejected: Iterable[Mapping[str, Any]]) -> Iterator[Item | None]:
    """Yield the items that are not retried, and None for each other row, so that the consumer can stop in time."""
    retried = iter(rejected)
    following = next(retried, None)
    for row in rows:
        if following is not None and (row.source, row.row) == (following["source"], following["row"]):
            following = next(retried, None)
            yield None
        else:
            yield row if isinstance(row, Item) else None
