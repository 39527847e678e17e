"""S10: the share of reading, from the file to documents, in a first load; the library that parses runs next to it.

Each is a program that prints the CPU seconds of its loop, so that imports do not count:
`python -m tests.bench.reading WAY FILE`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measuring import cost_of, interleaved, python
from tests.bench.results import Result, at_most

SHARE = 0.01  # of the CPU of a first load with the real model
MICRO = 1e6  # microseconds a second
ROWS = 5  # times as many rows as elsewhere, since reading is fast


def reading(bench: Bench) -> Iterator[Result]:
    """Measure JSONL and Parquet."""
    rows = ROWS * bench.sizes.rows
    for path, library in ((bench.source(rows), "orjson"), (bench.parquet(rows), "pyarrow")):
        runs = (partial(_seconds, "documents", path), partial(_seconds, library, path))
        ours, theirs = interleaved(bench.sizes.times, *runs)
        yield at_most(
            "S10",
            f"CPU of reading, checking and hashing a row of {path.suffix[1:]} / of a first load",
            ours / rows / bench.first_load_item(),
            SHARE,
            unit="times",
            ours_us_a_row=ours / rows * MICRO,
            library_us_a_row=theirs / rows * MICRO,
        )


def _seconds(way: str, path: Path) -> float:
    return float(cost_of(python("-m", "tests.bench.reading", way, str(path))).out)


def _documents(path: Path) -> Callable[[], None]:
    from upsert_cli.documents.document import make_document
    from upsert_cli.documents.recipe import Recipe
    from upsert_cli.sources.find import find_files
    from upsert_cli.sources.item import Item
    from upsert_cli.sources.rows import Rows
    from upsert_cli.sources.source import Source

    sources = [Source.of(found) for found in find_files([str(path)])]
    recipe = Recipe(identity="model|384|256")

    def read() -> None:
        for row, _ in Rows(sources=sources):
            if isinstance(row, Item):
                make_document(row, recipe)

    return read


def _orjson(path: Path) -> Callable[[], None]:
    import orjson

    def read() -> None:
        with path.open("rb") as file:
            for line in file:
                orjson.loads(line)

    return read


def _pyarrow(path: Path) -> Callable[[], None]:
    import orjson
    import pyarrow.parquet as pq

    def read() -> None:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                # A payload that is JSON in a column has to be parsed in either way.
                for row in batch.to_pylist():
                    orjson.loads(row["payload"])

    return read


WAYS = {"documents": _documents, "orjson": _orjson, "pyarrow": _pyarrow}
MEASURES = {"S10": reading}

if __name__ == "__main__":
    read = WAYS[sys.argv[1]](Path(sys.argv[2]))
    began = time.process_time()
    read()
    print(time.process_time() - began)
