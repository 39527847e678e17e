"""S11: writing records whose text is in the document alone, and records whose metadata repeats it; Chroma's share of it.

The program `python -m tests.bench.writing once|twice|plain SOURCE CHROMA` is the process that writes, without a pipe;
`plain` makes the same calls of chromadb, without a check.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.bench.bench import Bench
from tests.bench.measuring import cost_of, interleaved, python
from tests.bench.results import Result, at_least, shown

if TYPE_CHECKING:
    from upsert_cli.store.base import WriteBatch

LESS_SQLITE = 20.0  # per cent
LESS_CPU = 10.0  # per cent
BATCH_ROWS = 512
DIMENSION = 384
INTRINSIC = 20  # dimensions that vectors of texts really have, about; an index of pure noise costs twice as much


def stored_once(bench: Bench) -> Iterator[Result]:
    """S11: CPU of the writes and size of the SQLite file, against metadata that names the text too."""
    rows = bench.sizes.rows
    source = bench.source(rows)
    sizes: dict[str, float] = {}

    def cpu(way: str) -> float:
        chroma = bench.fresh(way)
        done = cost_of(python("-m", "tests.bench.writing", way, str(source), str(chroma)))
        sizes[way] = (chroma / "chroma.sqlite3").stat().st_size / 1e6
        return float(done.out)

    once, twice = interleaved(bench.sizes.times, lambda: cpu("once"), lambda: cpu("twice"))
    raw = {"once_cpu_s": once, "twice_cpu_s": twice, "once_mb": sizes["once"], "twice_mb": sizes["twice"]}
    what = f"with the text once than twice, {rows:,} rows"
    less = 100 * (1 - sizes["once"] / sizes["twice"])
    yield at_least("S11", f"less SQLite {what}", less, LESS_SQLITE, unit="%", **raw)
    yield at_least("S11", f"less CPU of the writes {what}", 100 * (1 - once / twice), LESS_CPU, unit="%", **raw)


def share_of_chroma(bench: Bench) -> Iterator[Result]:
    """Measure which part of the CPU of the writing process is Chroma's; the final flush counts as ours."""
    rows = bench.sizes.rows
    source = str(bench.source(rows))

    def cpu(way: str) -> float:
        return float(cost_of(python("-m", "tests.bench.writing", way, source, str(bench.fresh(way)))).out)

    ours, plain = interleaved(bench.sizes.times, lambda: cpu("once"), lambda: cpu("plain"))
    yield shown(
        "writes",
        f"CPU of chromadb's own calls / of the writing process, {rows:,} rows",
        f"{plain / rows * 1e6:,.0f} / {ours / rows * 1e6:,.0f} us a row = {plain / ours:.0%}",
        plain_cpu_s=plain,
        ours_cpu_s=ours,
    )


def _write(way: str, source: Path, chroma: Path) -> float:
    """Write all items of a source, and return the CPU seconds of that and of the final flush."""
    import numpy as np

    from upsert_cli.documents.document import make_document
    from upsert_cli.documents.hashing import as_stored
    from upsert_cli.documents.recipe import Recipe
    from upsert_cli.sources.item import Item
    from upsert_cli.store.base import WriteBatch

    items = [json.loads(line) for line in source.read_text().splitlines()]
    fields = None if way != "twice" else tuple(dict.fromkeys(key for item in items for key in item["payload"]))
    recipe = Recipe(identity="bench", metadata_fields=fields)
    documents = [
        make_document(Item(item["object_id"], item["payload"], item.get("item_info"), str(source), 1), recipe)
        for item in items
    ]
    random = np.random.default_rng(0)
    base = random.normal(size=(INTRINSIC, DIMENSION))
    vectors = (random.normal(size=(len(documents), INTRINSIC)) @ base).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    batches = [
        WriteBatch(
            ids=[document.id for document in part],
            texts=[document.text for document in part],
            metadatas=[as_stored(document.metadata) for document in part],
            vectors=vectors[start : start + len(part)],
        )
        for start in range(0, len(documents), BATCH_ROWS)
        for part in [documents[start : start + BATCH_ROWS]]
    ]
    return _plainly(batches, chroma) if way == "plain" else _by_store(batches, chroma)


def _by_store(batches: Sequence[WriteBatch], chroma: Path) -> float:
    from upsert_cli.embedding.catalog import DEFAULT_MODEL
    from upsert_cli.embedding.identity import ModelIdentity
    from upsert_cli.store.locate import location_of
    from upsert_cli.store.target import Target

    target = Target(
        path=str(chroma),
        collection="default",
        model=ModelIdentity(name=DEFAULT_MODEL, dimension=DIMENSION, max_tokens=256),
        tool_version="bench",
    )
    chroma.mkdir()
    records, _ = location_of(target).open(target)
    began = time.process_time()
    for batch in batches:
        records.write(batch)
    records.close()
    return time.process_time() - began


def _plainly(batches: Sequence[WriteBatch], chroma: Path) -> float:
    import chromadb

    from upsert_cli.store.chroma.index_queue import LOAD_THRESHOLD

    hnsw: Any = {"space": "cosine", "sync_threshold": LOAD_THRESHOLD}
    client = chromadb.PersistentClient(str(chroma))
    collection = client.create_collection("default", configuration={"hnsw": hnsw}, embedding_function=None)
    began = time.process_time()
    for batch in batches:
        rows: Any = {"ids": batch.ids, "documents": batch.texts, "metadatas": batch.metadatas}
        collection.upsert(**rows, embeddings=batch.vectors)
    return time.process_time() - began


MEASURES = {"S11": stored_once, "writes": share_of_chroma}

if __name__ == "__main__":
    print(_write(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
