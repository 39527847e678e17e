"""S5, R8: the memory of `run` at its peak, all its processes together, for many rows and for hostile ones.

The collection's own index is about 2 KB a row and allowed for. Many rows go through the tiny model, to which the
difference between its memory and the real one's is added: that is measured as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measuring import Cost, cost_of, python
from tests.bench.results import Result, at_most
from tests.bench.texts import docstrings, items

LIMIT = 700.0  # MB
INDEX = 0.002  # MB a row
LONG_TEXT = 100_000  # characters; far more than the model reads
LONG_ROWS = 300
FAT_ROWS = 60
FAT_BYTES = 7_000_000


def many_rows(bench: Bench) -> Iterator[Result]:
    """S5 by number of rows."""
    more = _weight_of_the_model(bench)
    for rows in (bench.sizes.large // 10, bench.sizes.large):
        yield _result(f"{rows:,} rows", large_load(bench, rows), rows=rows, more=more)


def long_texts(bench: Bench) -> Iterator[Result]:
    """S5 by length of the texts, with the real model."""
    source = bench.made("long.jsonl", _write_long)
    cost = bench.load(source, bench.fresh("long"), memory=True)
    yield _result(f"{LONG_ROWS} texts of {LONG_TEXT:,} characters", cost, rows=LONG_ROWS)


def fat_rows(bench: Bench) -> Iterator[Result]:
    """S5 for a Parquet file in which fat rows follow many small ones, all in one row group."""
    rows = bench.sizes.large
    small = max(rows, FAT_ROWS)
    source = bench.made("fat.parquet", lambda path: _write_fat(path, bench.source(small)))
    # The small rows are in the collection already, so this is about reading and the fat ones.
    cost = bench.load(source, bench.loaded(small), memory=True)
    what = f"{FAT_ROWS} Parquet rows of {FAT_BYTES:,} bytes behind {small:,} small ones"
    yield _result(what, cost, rows=small + FAT_ROWS)


def a_million_rows(bench: Bench) -> Iterator[Result]:
    """R8: as many rows as fit into the time; `--large 1000000` asks for more."""
    rows = bench.sizes.large
    yield _result(f"{rows:,} rows of JSONL", large_load(bench, rows), rows=rows, row="R8")
    cost = bench.load(bench.parquet(rows), bench.fresh("large"), tiny=True, memory=True)
    yield _result(f"{rows:,} rows of Parquet", cost, rows=rows, row="R8")


def large_load(bench: Bench, rows: int) -> Cost:
    """Return the cost of a first load through the tiny model, measured at the first call."""

    def load() -> Cost:
        cost = bench.load(bench.source(rows), chroma := bench.fresh("large"), tiny=True, memory=True)
        bench.made(f"loaded-{rows}", chroma.rename)
        return cost

    return bench.once(f"run of {rows} rows through the tiny model", load)


def _result(what: str, cost: Cost, *, rows: int, more: float = 0.0, row: str = "S5") -> Result:
    return at_most(
        row,
        f"peak memory of `run`, {what}",
        cost.together + more,
        LIMIT + INDEX * rows,
        unit="MB",
        largest_process_mb=cost.largest,
        together_mb=cost.together,
        added_for_the_model_mb=more,
        cpu_s=cost.cpu,
    )


def _weight_of_the_model(bench: Bench) -> float:
    """Return how many MB the real model takes more than the tiny one, for the same texts."""
    rows = min(bench.sizes.texts, bench.sizes.large // 10)
    tiny = bench.load(bench.source(rows), bench.fresh("weight"), tiny=True, memory=True)
    real = bench.load(bench.source(rows), bench.fresh("weight"), memory=True)
    return max(0.0, real.together - tiny.together)


def _write_long(path: Path) -> None:
    text = "\n".join(docstrings())
    with path.open("w") as file:
        for number, row in enumerate(items(LONG_ROWS)):
            start = number * 997
            row["payload"]["text"] = text[start : start + LONG_TEXT]
            file.write(json.dumps(row) + "\n")


def _write_fat(path: Path, small: Path) -> None:
    cost_of(python("-m", "tests.bench.fat", str(small), str(path), str(FAT_ROWS), str(FAT_BYTES)))


MEASURES = {
    "S5-rows": many_rows,
    "S5-long": long_texts,
    "S5-fat": fat_rows,
    "R8": a_million_rows,
}
