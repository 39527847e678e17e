"""The final flush of a large collection, and the time that it saves the next reader.

Both are programs: `python -m tests.bench.flushing close|abandon|query CHROMA`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measuring import cost_of, python
from tests.bench.memory import large_load
from tests.bench.results import Result, shown

NEW_ROWS = 2_000  # rows that are written before the end, so that there is something to flush


def flushing(bench: Bench) -> Iterator[Result]:
    """Measure the close of a load with and without the flush, and the first query of the next client."""
    rows = bench.sizes.large
    large_load(bench, rows)
    found = {}
    for end in ("close", "abandon"):
        chroma = bench.loaded(rows)
        found[end] = _seconds(end, chroma)
        found[f"query after {end}"] = _seconds("query", chroma)
        found[f"written by {end}"] = sum(path.stat().st_size for path in chroma.rglob("*.bin")) / 1e6
    raw = {f"{name.replace(' ', '_')}_cpu_s": value for name, value in found.items()}
    yield shown("flush", f"CPU of the final flush at {rows:,} rows", f"{found['close']:.2f} s", **raw)
    yield shown(
        "flush",
        "CPU of the next client's first query with / without the flush",
        f"{found['query after close']:.2f} / {found['query after abandon']:.2f} s",
        **raw,
    )


def _seconds(way: str, chroma: Path) -> float:
    return float(cost_of(python("-m", "tests.bench.flushing", way, str(chroma))).out)


def _end_of_a_load(chroma: Path, *, flush: bool) -> float:
    import numpy as np

    from upsert_cli.embedding.catalog import DEFAULT_MODEL
    from upsert_cli.embedding.identity import ModelIdentity
    from upsert_cli.store.base import WriteBatch
    from upsert_cli.store.locate import location_of
    from upsert_cli.store.target import Target

    target = Target(
        path=str(chroma),
        collection="default",
        model=ModelIdentity(name=DEFAULT_MODEL, dimension=384, max_tokens=256),
        tool_version="bench",
    )
    records, _ = location_of(target).open(target)
    texts = [f"one more text {number}" for number in range(NEW_ROWS)]
    vectors = np.random.default_rng(0).normal(size=(NEW_ROWS, 384)).astype(np.float32)
    rows = WriteBatch(
        ids=[f"more-{text}" for text in texts], texts=texts, metadatas=[{"a": 1}] * NEW_ROWS, vectors=vectors
    )
    records.write(rows)
    began = time.process_time()
    if flush:
        records.close()
    else:
        records.abandon()
    return time.process_time() - began


def _first_query(chroma: Path) -> float:
    import chromadb
    import numpy as np

    began = time.process_time()
    collection = chromadb.PersistentClient(str(chroma)).get_collection("default", embedding_function=None)
    collection.query(query_embeddings=np.ones((1, 384), dtype=np.float32), n_results=1)
    return time.process_time() - began


MEASURES = {"flush": flushing}

if __name__ == "__main__":
    way, chroma = sys.argv[1], Path(sys.argv[2])
    print(_first_query(chroma) if way == "query" else _end_of_a_load(chroma, flush=way == "close"))
