"""R8: memory does not grow with the rows of a source; `pytest -m slow` shows it with a million rows and more.

Rows have ids that come again, so what grows with a collection stays out of it: its index, which S5's benchmark measures.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bench.measuring import Cost, cost_of
from tests.support.terminal import Terminal

ROWS = int(os.environ.get("UPSERT_CLI_TEST_ROWS", "1000000"))  # of the slow test
IDS = 3_000  # different ones
FEW = 10_000  # rows; by then everything that a load needs is in memory
GROUP_ROWS = 10_000  # rows a row group
LIMIT = 700  # MB of all processes together (S5)
SPREAD = 80  # MB by which two loads may differ: the allocator's, and the footer of a Parquet file of 1,000 row groups

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
Write = Callable[[Path, int], None]


def _items(rows: int) -> Iterator[dict[str, Any]]:
    for row in range(rows):
        number = row % IDS
        text = f"text {number} " + "and more of it " * (number % 29)
        yield {"object_id": f"obj-{number}", "payload": {"text": text, "number": number, "topic": f"t{number % 7}"}}


def _write_jsonl(path: Path, rows: int) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(item) + "\n" for item in _items(rows))


def _write_parquet(path: Path, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({
        "object_id": pa.string(),
        "payload": pa.struct({"text": pa.string(), "number": pa.int64(), "topic": pa.string()}),
    })  # fmt: skip
    items = _items(rows)
    with pq.ParquetWriter(path, schema) as writer:
        while part := list(itertools.islice(items, GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(part, schema))


def _load(tiny: Terminal, write: Write, suffix: str, rows: int) -> Cost:
    path = tiny.folder / f"{rows}{suffix}"
    write(path, rows)
    line = f"upsert-cli run {path.name} --task-id rows-{rows} --json"
    cost = cost_of(tiny.arguments(line), cwd=tiny.folder, env=tiny.environment, memory=True)
    path.unlink()
    print(f"{suffix}: {rows:,} rows, {cost.together:.0f} MB together, {cost.largest:.0f} MB at most, {cost.cpu:.0f} s")
    return cost


def _check(tiny: Terminal, write: Write, suffix: str, *, rows: int) -> None:
    _load(tiny, write, suffix, IDS)
    few = _load(tiny, write, suffix, FEW)
    many = _load(tiny, write, suffix, rows)
    assert many.together < LIMIT
    assert many.together < few.together + SPREAD
    counts = tiny.info(f"rows-{rows}")["counts"]
    assert counts["read"] == counts["unchanged"] == rows
    assert tiny.info(f"rows-{IDS}")["counts"]["inserted"] == IDS == len(tiny.records())


@pytest.mark.parametrize(("write", "suffix"), [(_write_jsonl, ".jsonl"), (_write_parquet, ".parquet")])
def test_memory_does_not_grow_with_the_rows(tiny: Terminal, write: Write, suffix: str) -> None:
    """Forty thousand rows take no more than ten thousand, and each is counted."""
    _check(tiny, write, suffix, rows=40_000)


@pytest.mark.slow
@pytest.mark.parametrize(("write", "suffix"), [(_write_jsonl, ".jsonl"), (_write_parquet, ".parquet")])
def test_memory_does_not_grow_with_a_million_rows(tiny: Terminal, write: Write, suffix: str) -> None:
    """Memory does not grow with the number of rows in UPSERT_CLI_TEST_ROWS."""
    _check(tiny, write, suffix, rows=ROWS)
