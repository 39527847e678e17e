"""The programs that `constants` runs: each measures one setting in its own process and prints the result as JSON.

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

    from upsert_cli.embedding.embedder import Device, Precision

    Vectors = NDArray[np.float32]

DIMENSION = 384
CLUSTERS = 200  # of vectors; texts are about something, so their vectors are not spread evenly
SPREAD = 0.7  # of a cluster, against a distance of about 1.4 between two
QUERIES = 200
NEAREST = 10


def embed(
    *,
    source: str,
    model: str,
    budget: int,
    threads: int,
    window: int,
    precision: Precision = "fp32",
    device: Device = "cpu",
    keep: str | None = None,
) -> dict[str, float]:
    """Embed a file with the package's own stages, and the vectors in the file `keep` in the order of the rows."""
    import numpy as np

    from upsert_cli.documents.recipe import Recipe
    from upsert_cli.embedding.catalog import DEFAULT_MODEL, GivenFolder
    from upsert_cli.embedding.embedder import Effort, load_model
    from upsert_cli.embedding.models import find_model
    from upsert_cli.pipeline import embed
    from upsert_cli.pipeline.batches import Pace, read_batches
    from upsert_cli.sources.find import find_files
    from upsert_cli.sources.rows import Rows
    from upsert_cli.sources.source import Source
    from upsert_cli.store.base import Comparison, Verdict

    found = find_model(DEFAULT_MODEL, given=GivenFolder(path=Path(model)))
    embedder = load_model(found, device=device, precision=precision, threads=threads)
    sources = [Source.of(found) for found in find_files([source])]
    batches = read_batches(Rows(sources=sources), recipe=Recipe(identity=""), pace=Pace(window))
    plans = (
        replace(
            each,
            comparison=Comparison(verdicts=[Verdict.NEW] * len(each.documents)),
        )
        for each in batches
    )
    began = (time.process_time(), time.monotonic())
    vectors: list[Any] = []
    texts: list[str] = []
    stage = embed.embed(
        plans, load=lambda: embedder, effort=Effort(threads=threads, budget=budget), stopping=threading.Event()
    )
    for embedded in stage:
        vectors += [embedded.vectors[row] for row in sorted(embedded.vectors)]
        texts += [document.text for document in embedded.documents]
    cpu, wall = time.process_time() - began[0], time.monotonic() - began[1]
    if keep is not None:
        np.save(keep, np.asarray(vectors, dtype=np.float32))
    lengths = [min(length, embedder.max_tokens) for length in embedder.count(texts)]
    return {
        "cpu_ms_a_text": cpu / len(texts) * 1e3,
        "wall_ms_a_text": wall / len(texts) * 1e3,
        "gflop_a_cpu_s": _gflop(lengths, json.loads((Path(model) / "config.json").read_text())) / cpu,
    }


def _gflop(lengths: list[int], config: dict[str, int]) -> float:
    """Return the work in the products of an encoder for texts of some lengths in tokens, in 1e9; padding is no work."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    a_token = 2 * (4 * hidden**2 + 2 * hidden * inner)
    in_attention = sum(4 * hidden * length**2 for length in lengths)
    return config["num_hidden_layers"] * (sum(lengths) * a_token + in_attention) / 1e9


def multiply(*, rows: int, hidden: int, inner: int, seconds: float) -> dict[str, float]:
    """Multiply matrices as large as those of the model, in one thread of onnxruntime, and return the rate."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((hidden, inner), dtype=np.float32), "weights")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, width])
        for name, width in (("in", hidden), ("out", inner))
    ]
    node = helper.make_node("MatMul", ["in", "weights"], ["out"])
    graph = helper.make_graph([node], "product", ends[:1], ends[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {"in": np.ones((rows, hidden), dtype=np.float32)}
    began, calls = time.process_time(), 0
    while time.process_time() - began < seconds:
        session.run(None, given)
        calls += 1
    return {"gflop_a_cpu_s": 2 * rows * hidden * inner * calls / 1e9 / (time.process_time() - began)}


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


SWEEPS: dict[str, Callable[..., dict[str, float]]] = {"embed": embed, "write": write, "multiply": multiply}

if __name__ == "__main__":
    print(json.dumps(SWEEPS[sys.argv[1]](**json.loads(sys.argv[2]))))
