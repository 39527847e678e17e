"""An embedded batch -> its records in the collection, the rejects of what it would not take, and what has to go.

The last good row of an id wins: where the last one is refused, the one before it is loaded in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from upsert_cli.errors import Stage
from upsert_cli.pipeline.batches import Batch
from upsert_cli.pipeline.embedded_batch import Embedded
from upsert_cli.sources.item import Reject
from upsert_cli.store.base import RecordRef
from upsert_cli.store.process import CALL_ROWS, StoreProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A batch that Chroma was given."""

    embedded: Embedded
    refused: Sequence[Reject]
    """What Chroma would not take of it."""

    def next_choice(self) -> Batch | None:
        """Returns the items that take the place of those that could not be embedded or written; None: none."""
        refused = (*self.embedded.rejects, *self.refused)
        return self.embedded.batch.next_choice({str(reject.object_id) for reject in refused})


def write_batch(
    embedded: Embedded,
    writer: StoreProcess,
    *,
    embed: Callable[[Batch], Embedded],
    between: Callable[[], None] = lambda: None,
) -> list[Written]:
    """Writes what is new or changed of a batch, and then what takes the place of rows that were refused.

    Args:
        embedded: The batch.
        writer: Of the collection.
        embed: Compares and embeds what takes the place of others, by itself: once these were written.
        between: Called between parts of a large batch; may raise to leave the others unwritten.

    Returns:
        The batch, and those that took the place of some of its items; they are settled together.
    """
    written = [Written(embedded=embedded, refused=_write(embedded, writer, between))]
    while (batch := written[-1].next_choice()) is not None:
        between()
        instead = embed(batch)
        written.append(Written(embedded=instead, refused=_write(instead, writer, between)))
    return written


def embedded_instead(written: Sequence[Written]) -> int:
    """Return how many items were only embedded when a row before took the place of a rejected one."""
    first, *others = [one.embedded.embedded_items() for one in written]
    return len(set().union(*others) - first)


def _write(embedded: Embedded, writer: StoreProcess, between: Callable[[], None]) -> list[Reject]:
    upserts, updates = embedded.upserts(), embedded.updates()
    if not upserts.ids and not updates.ids:
        return []
    refused = dict(writer.write(upserts, updates, between=between))
    return [
        Reject.of(document.item, stage=Stage.UPSERT, detail=refused[document.id])
        for document in reversed(embedded.batch.documents)  # of an item with several, the first is told
        if document.id in refused
    ]


def delete_stale_chunks(
    stale: Sequence[RecordRef], writer: StoreProcess, *, between: Callable[[], None] = lambda: None
) -> None:
    """Deletes what items have no longer, once all that they have is written: at no moment is an item gone.

    Args:
        stale: The records.
        writer: Of the collection.
        between: Called between parts of a large number; may raise to leave the others, which the next load finds.
    """
    for start in range(0, len(stale), CALL_ROWS):
        if start:
            between()
        writer.delete(stale[start : start + CALL_ROWS])
