"""Writes Parquet files, in a process of their own since that takes much memory.

`python -m tests.bench.fat JSONL PARQUET FAT_ROWS FAT_BYTES [ROWS_A_GROUP]` turns items into a file with JSON payloads
and some fat rows at its end.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

PAGE_ROWS = 18


def write_parquet(source: Path, target: Path, *, fat_rows: int, fat_bytes: int, group: int | None = None) -> None:
    """Write the items of a JSONL file, and then fat ones, into row groups of `group` rows (None: a single one)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [*_items(source), *_fat(fat_rows, fat_bytes)]
    columns = {
        "object_id": [row["object_id"] for row in rows],
        "payload": [json.dumps(row["payload"]) for row in rows],
    }
    # pyarrow ends a page only after that many rows: 18 of 7 MB make one of 126 MB, about the largest that is not refused.
    pq.write_table(pa.table(columns), target, row_group_size=group or len(rows), write_batch_size=PAGE_ROWS)


def _items(source: Path) -> Iterator[dict[str, object]]:
    with source.open() as file:
        yield from map(json.loads, file)


def _fat(rows: int, size: int) -> Iterator[dict[str, object]]:
    for number in range(rows):
        yield {
            "object_id": f"fat-{number}",
            "payload": {"text": f"fat row {number}", "blob": chr(97 + number % 26) * size},
        }


if __name__ == "__main__":
    source, target, fat_rows, fat_bytes, *group = sys.argv[1:]
    write_parquet(
        Path(source),
        Path(target),
        fat_rows=int(fat_rows),
        fat_bytes=int(fat_bytes),
        group=int(group[0]) if group else None,
    )
