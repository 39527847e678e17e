"""The programs behind `constants`: one setting each, in a process of its own, which prints what it measured as JSON.

`python -m tests.bench.sweeps embed '{"budget": 512, ...}'`
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

DIMENSION = 384
CLUSTERS = 200  # of vectors; texts are about something, so their vectors are not spread evenly
SPREAD = 0.7  # of a cluster, against a distance of about 1.4 between two
QUERIES = 200
NEAREST = 10


def embed(*, source: str, model: str, budget: int, threads: int, window: int) -> dict[str, float]:
    """Embed a file with the package's own stages, under another budget of tokens, threads and rows a batch."""
    from upsert_cli import embedding
    from upsert_cli.documents.document import Recipe
    from upsert_cli.embedding.catalog import DEFAULT_MODEL
    from upsert_cli.embedding.custom import GivenFolder
    from upsert_cli.embedding.embedder import Effort
    from upsert_cli.embedding.models import find_model
    from upsert_cli.pipeline import embed
    from upsert_cli.pipeline.batches import Pace, read_batches
    from upsert_cli.sources.find import find_files
    from upsert_cli.sources.rows import Rows
    from upsert_cli.sources.source import Source
    from upsert_cli.store.base import Comparison, Verdict

    embedder = embedding.load(find_model(DEFAULT_MODEL, given=GivenFolder(path=Path(model))))
    sources = [Source.of(found) for found in find_files([source])]
    batches = read_batches(Rows(sources=sources), recipe=Recipe(identity=""), pace=Pace(window))
    plans = (
        replace(
            each,
            comparison=Comparison(verdicts=[Verdict.NEW] * len(each.documents)),
        )
        for each in batches
    )
    began, rows = (time.process_time(), time.monotonic()), 0
    stage = embed.embed(
        plans, load=lambda: embedder, effort=Effort(threads=threads, budget=budget), stopping=threading.Event()
    )
    for embedded in stage:
        rows += len(embedded.vectors)
    return {
        "cpu_ms_a_text": (time.process_time() - began[0]) / rows * 1e3,
        "wall_ms_a_text": (time.monotonic() - began[1]) / rows * 1e3,
    }


def write(*, rows: int, batch: int, array: str, index: dict[str, Any]) -> dict[str, float]:
    """Fill a collection and asks it: CPU of writing, the slowest call, and how many of the nearest it finds."""
    import chromadb

    given = _clustered(rows)
    configuration: Any = {"hnsw": {"space": "cosine"} | index}
    with tempfile.TemporaryDirectory() as folder:
        client = chromadb.PersistentClient(folder)
        collection = client.create_collection("sweep", embedding_function=None, configuration=configuration)
        began, slowest = time.process_time(), 0.0
        for start in range(0, rows, batch):
            called = time.monotonic()
            _upsert(collection, range(start, min(start + batch, rows)), _shaped(given[start : start + batch], array))
            slowest = max(slowest, time.monotonic() - called)
        cost = {"cpu_us_a_row": (time.process_time() - began) / rows * 1e6, "slowest_call_s": slowest}
        return cost | {"recall": _recall(collection, given)}


def _upsert(collection: Any, places: range, embed: object) -> None:
    collection.upsert(
        ids=[f"row-{place}" for place in places],
        documents=[f"text number {place} " + "and some more of it " * 20 for place in places],
        metadatas=[{"number": place, "topic": f"topic {place % 7}"} for place in places],
        embeddings=embed,
    )


def _shaped(embed: Vectors, array: str) -> object:
    return {"list of lists": embed.tolist, "list of ndarrays": lambda: list(embed)}.get(array, lambda: embed)()


def _recall(collection: Any, given: Vectors) -> float:
    """Return the share of the nearest that queries near to some of the rows find."""
    import numpy as np

    noise = np.random.default_rng(1).normal(0, 0.02, DIMENSION).astype(np.float32)
    queries = given[:: max(1, len(given) // QUERIES)] + noise
    answers = collection.query(query_embeddings=queries, n_results=NEAREST, include=[])["ids"]
    nearest = np.argsort(-(queries @ given.T), axis=1)[:, :NEAREST]
    hits = sum(len({f"row-{place}" for place in row} & set(ids)) for row, ids in zip(nearest, answers, strict=True))
    return hits / int(nearest.size)


def _clustered(rows: int) -> Vectors:
    import numpy as np

    random = np.random.default_rng(0)
    centres = random.normal(0, 1, (CLUSTERS, DIMENSION))
    embed = centres[random.integers(0, CLUSTERS, rows)] + random.normal(0, SPREAD, (rows, DIMENSION))
    unit: Vectors = (embed / np.linalg.norm(embed, axis=1, keepdims=True)).astype(np.float32)
    return unit


SWEEPS: dict[str, Callable[..., dict[str, float]]] = {"embed": embed, "write": write}

if __name__ == "__main__":
    print(json.dumps(SWEEPS[sys.argv[1]](**json.loads(sys.argv[2]))))
