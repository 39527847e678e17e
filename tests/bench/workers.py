"""Loads on Ray: their cost compared with the local engine on one machine, and the gain from more workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measuring import cost_of, python
from tests.bench.results import Result, shown
from tests.bench.texts import items, write_jsonl
from tests.support.chroma_server import ChromaServer
from tests.support.raylets import Raylets
from tests.support.sleeping_embedder import TEXT_SECONDS
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.progress import read_timeline

SHARDS = 16
WORKERS = (1, 2, 4)


def cost(bench: Bench) -> Iterator[Result]:
    """Load the same files into a server by each engine."""
    with ChromaServer.started() as server, Raylets.started(1, processors=2) as raylets:
        tiny = ("-m", "upsert_cli", "run", "--model-path", str(bench.tiny_model))
        ours, _ = _load(bench, server, "local", *tiny)
        engine = ("--engine", "ray", "--ray-address", raylets.address, "--workers", "2", "--threads", "1")
        distributed, start = _load(bench, server, "ray", *tiny, *engine)
        yield shown(
            "ray-cost",
            f"rows a second, tiny model, into a server: 2 workers on this machine / the local engine, {_rows(bench):,} rows",
            f"{distributed:.0f} / {ours:.0f} = {distributed / ours:.2f} times, and {start:.0f} s until the first rows",
            ray_rows_a_s=distributed,
            local_rows_a_s=ours,
            start_s=start,
        )


def scaling(bench: Bench) -> Iterator[Result]:
    """Load the same files by more and more workers that only wait."""
    with ChromaServer.started() as server, Raylets.started(1, processors=max(WORKERS)) as raylets:
        sleeping = ("-m", "tests.support.sleeping_embedder", "run", "--model-path", str(bench.tiny_model))
        alone = 0.0
        for workers in WORKERS:
            engine = ("--engine", "ray", "--ray-address", raylets.address, "--workers", str(workers), "--threads", "1")
            rate, start = _load(bench, server, f"sleeping-{workers}", *sleeping, *engine)
            alone = alone or rate
            yield shown(
                "ray-scaling",
                f"rows a second by {workers} workers that wait {1000 * TEXT_SECONDS:.0f} ms a text",
                f"{rate:.0f}, {rate / alone:.2f} times one worker; {start:.0f} s until the first rows",
                rows_a_s=rate,
                start_s=start,
            )


def _rows(bench: Bench) -> int:
    return max(SHARDS, bench.sizes.rows // 5)


def _shards(folder: Path, rows: int) -> None:
    folder.mkdir()
    every = list(items(rows))
    for shard in range(SHARDS):
        part = every[shard * rows // SHARDS : (shard + 1) * rows // SHARDS]
        write_jsonl(folder / f"{shard:02d}.jsonl", iter(part))


def _load(bench: Bench, server: ChromaServer, name: str, *arguments: str) -> tuple[float, float]:
    """Load the files; return rows per second after the first commit, and the seconds until then."""
    bench.say(f"loading {name}")
    sources = bench.made("shards", lambda folder: _shards(folder, _rows(bench)))
    journal = bench.folder / "journal-ray"
    target = ("--chroma", server.url, "--collection", name, "--task-id", name)
    cost_of(python(*arguments, str(sources), *target, "--journal", str(journal)))
    points = [point for point in read_timeline(Journal(journal).files(name).timeline).points if point.written]
    first, last = points[0], next(point for point in points if point.written == points[-1].written)
    return (last.written - first.written) / max(last.seconds - first.seconds, 0.001), first.seconds


MEASURES = {"ray-cost": cost, "ray-scaling": scaling}
