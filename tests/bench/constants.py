"""The measurements that the package's constants are based on: `python -m tests.bench --constants` repeats them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from typing import Any

from tests.bench.bench import MEASURE, Bench
from tests.bench.measuring import cost_of, python
from tests.bench.results import Result, short, shown
from upsert_cli.embedding.embedder import BF16_TOKEN_BUDGET, TOKEN_BUDGET
from upsert_cli.embedding.openvino import bf16_fault
from upsert_cli.pipeline.batches import MAX_ROWS
from upsert_cli.store.chroma.index_queue import LOAD_THRESHOLD
from upsert_cli.store.chroma.records import WRITE_ROWS

SHARE = 3  # for each setting, the real model embeds every n-th text
BUDGETS = (128, 256, 512, 1_024, 2_048, 8_192)  # padded tokens
THREADS = (1, 2, 4)
WINDOWS = (16, 64, 256, 512, 1_024)  # rows
BATCHES = (16, 64, 256, 512, 1_024, 2_048)  # rows a call
ARRAYS = ("ndarray", "list of ndarrays", "list of lists")
INDEXES: dict[str, dict[str, int]] = {
    "as it comes": {},
    "sync_threshold 10,000": {"sync_threshold": 10_000},
    "sync_threshold 100,000": {"sync_threshold": 100_000},
    "batch_size 1,000, sync_threshold 10,000": {"batch_size": 1_000, "sync_threshold": 10_000},
    "num_threads 1": {"num_threads": 1},
    "M 8": {"max_neighbors": 8},
    "M 32": {"max_neighbors": 32},
    "ef_construction 50": {"ef_construction": 50},
    "ef_construction 200": {"ef_construction": 200},
}


def budgets(bench: Bench) -> Iterator[Result]:
    """Measure padded tokens a micro-batch."""
    for budget in BUDGETS:
        found = _embed(bench, budget=budget)
        yield _of_embedding("tokens", f"{budget:,} padded tokens a micro-batch", found, chosen=budget == TOKEN_BUDGET)


def budgets_in_bf16(bench: Bench) -> Iterator[Result]:
    """Measure the same in bf16, where the processor has it."""
    if (fault := bf16_fault()) is not None:
        yield shown("tokens-bf16", "padded tokens a micro-batch in bf16", fault)
        return
    for budget in BUDGETS:
        found = _embed(bench, budget=budget, precision="bf16")
        what = f"{budget:,} padded tokens a micro-batch in bf16"
        yield _of_embedding("tokens-bf16", what, found, chosen=budget == BF16_TOKEN_BUDGET)


def threads(bench: Bench) -> Iterator[Result]:
    """Measure threads that share the session; the package takes as many as there are processors."""
    for count in THREADS:
        yield _of_embedding("threads", f"{count} threads", _embed(bench, threads=count))


def windows(bench: Bench) -> Iterator[Result]:
    """Measure rows a batch, by which texts of one length find each other."""
    for rows in WINDOWS:
        found = _embed(bench, window=rows)
        yield _of_embedding("window", f"{rows:,} rows a window", found, chosen=rows == MAX_ROWS)


def batches(bench: Bench) -> Iterator[Result]:
    """Measure rows a write."""
    for rows in BATCHES:
        yield _of_writing("batch", f"{rows:,} rows a write", _write(bench, batch=rows), chosen=rows == WRITE_ROWS)


def arrays(bench: Bench) -> Iterator[Result]:
    """Measure each form in which vectors can be passed to Chroma."""
    for array in ARRAYS:
        yield _of_writing("array", f"vectors as {array}", _write(bench, array=array), chosen=array == "ndarray")


def indexes(bench: Bench) -> Iterator[Result]:
    """Measure settings of the index."""
    for name, index in INDEXES.items():
        chosen = index == {"sync_threshold": LOAD_THRESHOLD}
        yield _of_writing("index", f"index {name}", _write(bench, index=index), chosen=chosen)


def _embed(bench: Bench, **setting: int | str) -> dict[str, float]:
    source = bench.source(max(1, bench.sizes.texts // SHARE))
    usual = {"budget": TOKEN_BUDGET, "threads": 2, "window": MAX_ROWS}
    return _median(bench, "embed", usual | setting | {"source": str(source), "model": str(bench.model.resolve())})


def _write(bench: Bench, **setting: Any) -> dict[str, float]:
    usual = {"rows": bench.sizes.rows // 4, "batch": WRITE_ROWS, "array": "ndarray"}
    return _median(bench, "write", usual | {"index": {"sync_threshold": LOAD_THRESHOLD}} | setting)


def _median(bench: Bench, sweep: str, setting: dict[str, Any]) -> dict[str, float]:
    command = python("-m", "tests.bench.sweeps", sweep, json.dumps(setting))
    found: list[dict[str, float]] = [json.loads(cost_of(command).out) for _ in range(bench.sizes.times)]
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def _of_embedding(row: str, what: str, found: dict[str, float], *, chosen: bool = False) -> Result:
    figure = f"{short(found['cpu_ms_a_text'])} ms of CPU a text, {short(found['wall_ms_a_text'])} ms in all"
    return shown(row, _marked(what, chosen=chosen), figure, **found)


def _of_writing(row: str, what: str, found: dict[str, float], *, chosen: bool) -> Result:
    figure = (
        f"{short(found['cpu_us_a_row'])} us of CPU a row, slowest call {short(found['slowest_call_s'])} s, "
        f"{found['recall']:.1%} of the nearest found"
    )
    return shown(row, _marked(what, chosen=chosen), figure, **found)


def _marked(what: str, *, chosen: bool) -> str:
    return f"{what} (chosen)" if chosen else what


MEASURES: dict[str, MEASURE] = {
    "tokens": budgets,
    "tokens-bf16": budgets_in_bf16,
    "threads": threads,
    "window": windows,
    "batch": batches,
    "array": arrays,
    "index": indexes,
}
