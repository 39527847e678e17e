"""A file of items that is written whole or not at all, or standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from upsert_cli.atomic import writing_out
from upsert_cli.errors import UpsertCliError, reason_of
from upsert_cli.sources.item import WrittenItem
from upsert_cli.sources.readers import item_writer

BLOCK_ROWS = 10_000  # items written at once; a row group of Parquet
BLOCK_BYTES = 4 << 20  # bytes written at once; with 16 MiB the process grew to 300 MB, and was no faster
STANDARD_OUTPUT = Path("-")


def write_items(items: Iterable[WrittenItem], file: Path, *, format_name: str) -> None:
    """Write items to a file, which keeps its content until the new one is complete.

    Args:
        items: The items.
        file: The file, or `-` for standard output.
        format_name: One of `WRITTEN_FORMATS`.

    Raises:
        UpsertCliError: The file cannot be written.
    """
    with _opened(file) as raw, item_writer(raw, format_name) as write:
        for block in _blocks(items):
            write(block)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if file == STANDARD_OUTPUT:
        yield sys.stdout.buffer  # the command line reports its faults
        sys.stdout.buffer.flush()  # or a full disk would show only after the end, without an error
        return
    try:
        with writing_out(file) as raw:
            yield raw
    except OSError as error:
        raise UpsertCliError(
            message=f"{file} cannot be written ({reason_of(error)}), and is as it was before; make room or "
            f"access, or name another file"
        ) from error


def _blocks(items: Iterable[WrittenItem]) -> Iterator[list[WrittenItem]]:
    block: list[WrittenItem] = []
    size = 0
    for item in items:
        block.append(item)
        size += len(item.payload)
        if len(block) >= BLOCK_ROWS or size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block
