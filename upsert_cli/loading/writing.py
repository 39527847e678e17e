"""An embedded window -> its records in the collection, the rejects of what it would not take, and what has to go."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from upsert_cli.errors import Stage
from upsert_cli.stream.chroma.rows import Member
from upsert_cli.stream.chroma.writer import CALL_ROWS, Writer
from upsert_cli.stream.embedded import Embedded
from upsert_cli.stream.items.reading import Reject


def write_window(embedded: Embedded, writer: Writer, *, between: Callable[[], None] = lambda: None) -> list[Reject]:
    """Writes what is new or changed of a window, and returns what Chroma would not take.

    Args:
        embedded: The window.
        writer: Of the collection.
        between: Called between parts of a large window; may raise to leave the others unwritten.
    """
    upserts, updates = embedded.upserts(), embedded.updates()
    if not upserts.ids and not updates.ids:
        return []
    refused = dict(writer.write(upserts, updates, between=between))
    return [
        Reject.of(document.item, stage=Stage.UPSERT, detail=refused[document.id])
        for document in reversed(embedded.window.documents)  # of an item with several, the first is told
        if document.id in refused
    ]


def delete_stale(stale: Sequence[Member], writer: Writer, *, between: Callable[[], None] = lambda: None) -> None:
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
