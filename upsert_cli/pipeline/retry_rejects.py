"""Rejected rows that a later good row has superseded, which a retry must not bring back.

A retry reads only the rejected rows, and a later row of the same id may already be in the collection. So one pass over
the sources before the retry finds the last good row of each id.
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

BLOCK_ROWS = 1_000  # ids to look up in one transaction; more gain nothing

Superseded: TypeAlias = Callable[[Item], bool]
"""A function that returns whether a later good row has the id of an item, and is not retried itself."""

Rejected: TypeAlias = Callable[[], Iterable[Mapping[str, Any]]]
"""A function that returns the rejects of all rows of a retry, committed ones too, in the order of the sources.

They are records of the rejects file; an `object_id` may be any JSON value.
"""


def nothing_superseded(_: Item) -> bool:
    """Return False: all rows are read in their order, so a later row replaces this one when its turn comes."""
    return False


@contextmanager
def superseded_by_later_rows(rows: Rows, *, rejected: Rejected, stopping: threading.Event) -> Iterator[Superseded]:
    """Read all rows, if any rejected row has an id, and yield a function that finds superseded rows.

    Any thread may set `stopping` to end the reading early.

    Raises:
        UpsertCliError: The temporary folder is full.
        SourceUnreadable: A file broke off or cannot be read any further.
        StageStopped: `stopping` was set.
    """
    numbers = {source.name: number for number, source in enumerate(rows.sources)}
    with closing(IdSet()) as ids:
        if ids.add(each["object_id"] for each in rejected() if isinstance(each["object_id"], str)):
            not_retried = _not_retried((row for row, _ in rows.all()), rejected())
            while block := list(itertools.islice(not_retried, BLOCK_ROWS)):
                if stopping.is_set():
                    raise StageStopped
                ids.record((row.object_id, numbers[row.source], row.row) for row in block if row is not None)
        yield lambda item: ids.last(item.object_id) > (numbers[item.source], item.row)


def _not_retried(rows: Iterator[Item | Reject], rejected: Iterable[Mapping[str, Any]]) -> Iterator[Item | None]:
    """Yield the items that are not retried; None for any other row, so that the consumer can stop in time."""
    retried = iter(rejected)
    following = next(retried, None)
    for row in rows:
        if following is not None and (row.source, row.row) == (following["source"], following["row"]):
            following = next(retried, None)
            yield None
        else:
            yield row if isinstance(row, Item) else None
