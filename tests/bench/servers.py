"""Writers: the gain from several of them where each write takes a long way to the server and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.bench.bench import Bench
from tests.bench.results import Result, shown
from tests.support.chroma_server import ChromaServer
from tests.support.proxy import Call, Fault, Proxy

AWAY = 0.5  # seconds that a write is on its way, beside the server's work; the network to a far region, or a busy cloud
DIMENSION = 384  # of the default model, which has nothing to do: the items bring their vectors
WINDOW = 100  # rows
WRITERS = (1, 4)


def writers(bench: Bench) -> Iterator[Result]:
    """The same load by one writer and by several."""
    rows = bench.sizes.rows
    source = bench.made(f"vectored-{rows}.jsonl", lambda path: _write_vectored(path, rows))
    with ChromaServer.started() as server, Proxy(server.port).running() as proxy:
        proxy.plan = _far_away
        seconds = {count: _seconds(bench, source, proxy.url, count) for count in WRITERS}
    one, several = (seconds[count] for count in WRITERS)
    yield shown(
        "writers",
        f"{rows:,} rows in windows of {WINDOW}, each write {AWAY} s away: --writers 1 / --writers {WRITERS[1]}",
        f"{one:.1f} s / {several:.1f} s, {one / several:.1f} times faster",
        one_s=one,
        several_s=several,
    )


def _far_away(call: Call) -> Fault | None:
    return Fault(stall=AWAY, passed_on=True) if call.is_write else None


def _seconds(bench: Bench, source: Path, url: str, count: int) -> float:
    """Return the wall seconds of a load without its start-up."""
    options = ("--collection", f"writers-{count}", "--writers", str(count), "--batch-size", str(WINDOW))
    cost = bench.load(source, url, *options)
    seconds = bench.task_of(cost)["seconds"]
    return float(seconds["total"] - seconds["opening"])


def _write_vectored(path: Path, rows: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((rows, DIMENSION)).round(3)
    items = (
        {"object_id": f"obj-{row}", "payload": {"text": f"text {row}", "vector": vectors[row].tolist()}}
        for row in range(rows)
    )
    path.write_text("".join(json.dumps(item) + "\n" for item in items))


MEASURES = {"writers": writers}
