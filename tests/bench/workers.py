"""Loads on Ray: what they cost beside the local engine on one machine, and what more workers gain."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measuring import cost_of, python
from tests.bench.results import Result, shown
from tests.bench.texts import items, write_jsonl
from tests.distributed.raylets import Raylets
from tests.distributed.sleeping import TEXT_SECONDS
from tests.servers.chroma import ChromaServer

SHARDS = 16
WORKERS = (1, 2, 4)


def ray(bench: Bench) -> Iterator[Result]:
    """Loads the same files into a server by each engine, and by more and more workers that only wait."""
    folder, rows = _shards(bench)
    with ChromaServer.started() as server, Raylets.started(1, processors=max(WORKERS)) as raylets:
        engine = ("--engine", "ray", "--ray-address", raylets.address)
        tiny = ("-m", "upsert_cli", "run", str(folder), "--model-path", str(bench.tiny_model))
        local, _ = _seconds(bench, server, "local", *tiny)
        threads = ("--workers", "2", "--threads", "1")
        distributed, start = _seconds(bench, server, "ray", *tiny, *engine, *threads)
        yield shown(
            "ray",
            f"seconds of {rows:,} rows, tiny model, into a server: 2 workers on this machine / the local engine",
            f"{distributed:.1f} / {local:.1f} = {distributed / local:.2f} times, and {start:.1f} s to join the cluster",
            ray_s=distributed,
            local_s=local,
            start_s=start,
        )
        alone = 0.0
        sleeping = ("-m", "tests.distributed.sleeping", "run", str(folder), "--model-path", str(bench.tiny_model))
        for workers in WORKERS:
            count = ("--workers", str(workers), "--threads", "1")
            seconds, _ = _seconds(bench, server, f"sleeping-{workers}", *sleeping, *engine, *count)
            alone = alone or seconds
            yield shown(
                "ray",
                f"rows a second by {workers} workers that wait {1000 * TEXT_SECONDS:.0f} ms a text",
                f"{rows / seconds:.0f}, {alone / seconds:.2f} times one worker",
                seconds=seconds,
            )


def _shards(bench: Bench) -> tuple[Path, int]:
    rows = max(SHARDS, bench.sizes.rows // 5)
    folder = bench.folder / "shards"
    folder.mkdir()
    every = list(items(rows))
    for shard in range(SHARDS):
        part = every[shard * rows // SHARDS : (shard + 1) * rows // SHARDS]
        write_jsonl(folder / f"{shard:02d}.jsonl", iter(part))
    return folder, rows


def _seconds(bench: Bench, server: ChromaServer, name: str, *arguments: str) -> tuple[float, float]:
    """Returns the wall seconds of a load but for its start, and those of the start."""
    bench.say(f"loading {name}")
    journal = ("--journal", str(bench.folder / f"journal-{name}"))
    began = time.monotonic()
    cost = cost_of(python(*arguments, "--chroma", server.url, "--collection", name, "--json", *journal))
    total = time.monotonic() - began
    busy: dict[str, float] = bench.task_of(cost)["seconds"]
    return total - busy["opening"], busy["opening"]


MEASURES = {"ray": ray}
