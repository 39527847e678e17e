"""S3b, S3c: embedding compared with pure matrix products on this machine, and bf16 compared with fp32."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping

from tests.bench.bench import Bench
from tests.bench.measuring import cost_of, python
from tests.bench.results import Result, at_least, at_most, shown
from upsert_cli.embedding.embedder import Effort, Precision
from upsert_cli.embedding.openvino import bf16_fault
from upsert_cli.pipeline.batches import MAX_ROWS

SHARE_OF_PRODUCT = 0.80
SHARE_OF_FP32 = 0.65  # CPU
DISTANCE = 0.0001  # 1 - cosine
SAME_NEIGHBOURS = 99.5  # %
NEAREST = 10
PRODUCT = {"rows": 512, "hidden": 384, "inner": 1_536}  # as in the default model, with a full micro-batch
PRODUCT_SECONDS = 3  # CPU


def against_the_product(bench: Bench) -> Iterator[Result]:
    """S3b: one thread each, in turns."""
    found = [
        (_sweep("multiply", PRODUCT | {"seconds": PRODUCT_SECONDS}), _embedded(bench, threads=1))
        for _ in range(bench.sizes.times)
    ]
    pure, ours = (statistics.median(each["gflop_a_cpu_s"] for each in column) for column in zip(*found, strict=True))
    yield at_least(
        "S3b",
        f"useful GFLOP a CPU second of embedding / of onnxruntime's MatMul ({pure:.0f})",
        ours / pure,
        SHARE_OF_PRODUCT,
        unit="times",
        product_gflop_a_cpu_s=pure,
        embedding_gflop_a_cpu_s=ours,
    )


def bf16_against_fp32(bench: Bench) -> Iterator[Result]:
    """S3c: the same texts, in turns; searches are in fp32, as by `query`."""
    if (fault := bf16_fault()) is not None:
        yield shown("S3c", "embedding in bf16", fault)
        return
    import numpy as np

    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    files = {precision: bench.fresh(precision).with_suffix(".npy") for precision in precisions}
    found = [
        [_embedded(bench, threads=2, precision=precision, keep=str(file)) for precision, file in files.items()]
        for _ in range(bench.sizes.times)
    ]
    precise_ms, fast_ms = (
        statistics.median(each["cpu_ms_a_text"] for each in column) for column in zip(*found, strict=True)
    )
    raw = {"fp32_cpu_ms_a_text": precise_ms, "bf16_cpu_ms_a_text": fast_ms}
    what = f"CPU of embedding {bench.sizes.texts:,} texts in bf16 / in fp32"
    yield at_most("S3c", what, fast_ms / precise_ms, SHARE_OF_FP32, unit="times", **raw)
    precise, fast = (np.load(file) for file in files.values())
    distance = 1.0 - float((precise * fast).sum(axis=1).min())
    yield at_most("S3c", "largest distance of a vector in bf16 to that in fp32", distance, DISTANCE, unit="")
    wanted, got = (np.argsort(-(precise @ each.T), axis=1)[:, :NEAREST] for each in (precise, fast))
    same = [100 * len(set(one) & set(other)) / len(one) for one, other in zip(wanted, got, strict=True)]
    yield at_least("S3c", "of the ten nearest are the same", statistics.mean(same), SAME_NEIGHBOURS, unit="%")


def _embedded(bench: Bench, *, precision: Precision = "fp32", **setting: object) -> dict[str, float]:
    source, model = bench.source(bench.sizes.texts), bench.model.resolve()
    budget = Effort.fitting("cpu", precision=precision).budget
    usual = {"source": str(source), "model": str(model), "budget": budget, "window": MAX_ROWS, "precision": precision}
    return _sweep("embed", usual | setting)


def _sweep(name: str, setting: Mapping[str, object]) -> dict[str, float]:
    found: dict[str, float] = json.loads(cost_of(python("-m", "tests.bench.sweeps", name, json.dumps(setting))).out)
    return found


MEASURES = {"S3b": against_the_product, "S3c": bf16_against_fp32}
