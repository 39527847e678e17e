"""An embedded window -> its records in the collection, and the rejects of what it would not take."""

from __future__ import annotations

from collections.abc import Callable

from upsert_cli.errors import Stage
from upsert_cli.stream.chroma.writer import Writer
from upsert_cli.stream.items.reading import Reject
from upsert_cli.stream.vectors import Embedded


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
        for document in embedded.window.documents
        if document.id in refused
    ]
