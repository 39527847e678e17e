"""A file -> Item, with file and row, from any position on.

A row that is no item becomes a Reject and never costs its neighbours; only a file that cannot be read any further ends
the stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from upsert_cli.sources.formats import FORMATS, unreadable
from upsert_cli.sources.forms import IdFrom, item_maker
from upsert_cli.sources.item import Item, Position, Reject
from upsert_cli.sources.source import Source


def read_items(
    sources: Sequence[Source], *, start: Position, id_field: str | None, id_from: IdFrom | None = None
) -> Iterator[tuple[Item | Reject, Position]]:
    """Yields every row from `start` on, with the position behind it; reads nothing before `start`.

    Args:
        sources: Read one after the other.
        start: `START`, or a position that this function yielded for the same sources.
        id_field: Dotted path of the field that holds the id, in files that are not in item form.
        id_from: What the id is made of, in files that have none.

    Raises:
        SourceUnreadable: A file is gone, broke off, or cannot be read any further.
    """
    for index in range(start.source, len(sources)):
        source = sources[index]
        _, row, begin = start if index == start.source else (index, 0, 0)
        make = item_maker(source, id_field=id_field, id_from=id_from)
        try:
            rows = FORMATS[source.format].read(source.path, row=row, offset=begin)
            for row, value, offset, text in rows:
                yield make(value, row, text), Position(index, row, offset)
        except OSError as error:
            raise unreadable(source.name, error, row=row) from error
