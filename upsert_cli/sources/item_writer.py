"""Items -> a file that a load reads as a source: JSONL, compressed or not, or Parquet with the objects as JSON text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, TypeAlias

from upsert_cli.sources.compression import compressing
from upsert_cli.sources.formats import COMPRESSIONS
from upsert_cli.sources.item import MAX_ROW, too_large
from upsert_cli.sources.json_text import as_json

WRITTEN_FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "parquet")
"""The formats that can be written, keys of `formats.SUFFIXES`."""


class WrittenItem(NamedTuple):
    """An item whose objects are JSON text, without line breaks."""

    object_id: str
    payload: bytes
    item_info: bytes | None

    @classmethod
    def of(cls, object_id: str, payload: dict[str, object], item_info: dict[str, object] | None) -> WrittenItem:
        """Return an item to write.

        Raises:
            ItemError: It would be larger than a row that is read.
        """
        item = cls(object_id, as_json(payload), None if item_info is None else as_json(item_info))
        if len(item.line()) > MAX_ROW:
            raise too_large()
        return item

    def line(self) -> bytes:
        """Return the item as a line of JSONL."""
        info = b"" if self.item_info is None else b',"item_info":' + self.item_info
        return b'{"object_id":%b,"payload":%b%b}\n' % (as_json(self.object_id), self.payload, info)


Write: TypeAlias = Callable[[Sequence[WrittenItem]], None]


@contextmanager
def item_writer(file: BinaryIO, format_name: str) -> Iterator[Write]:
    """Yield a function that writes items in one of `WRITTEN_FORMATS`; the file is complete after the block."""
    if format_name == "parquet":
        from upsert_cli.sources.parquet import writing_items

        with writing_items(file) as write:
            yield write
        return
    _, dot, ending = format_name.partition(".")
    compression = COMPRESSIONS[dot + ending]
    if compression is None:
        yield _line_writer(file)
        return
    with compressing(file, compression) as stream:
        yield _line_writer(stream)


def _line_writer(file: BinaryIO) -> Write:
    def write(items: Sequence[WrittenItem]) -> None:
        file.write(b"".join(item.line() for item in items))

    return write
