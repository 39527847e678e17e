"""Collections as sources: the cost of reading one compared with plain `get`, and the cost of copying a record.

`chroma copy` goes only to Chroma Cloud and back, so it is not measured here. Each way of reading is a program that
prints its CPU seconds and those of its children: `python -m tests.bench.copying WAY TARGET`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator
from functools import partial
from statistics import median
from typing import NamedTuple

from tests.bench.bench import Bench
from tests.bench.measuring import Cost, cost_of, python
from tests.bench.results import Result, at_most, short, shown
from tests.support.chroma_server import ChromaServer

PAGE = 1_000  # records, as in `store/record_rows.py`
TIMES = 2.0
TICK = 0.01  # seconds, in which the kernel counts CPU
COLLECTION = "default"


class _Reading(NamedTuple):
    cpu: float
    """Seconds, without start-up."""

    memory: float
    """MB of all processes together at their peak."""


def copying(bench: Bench) -> Iterator[Result]:
    """Read a collection in a folder and on a server, with and without vectors, next to `get`; copy it in between."""
    folder, back = str(bench.loaded(bench.sizes.large)), str(bench.fresh("back"))
    with ChromaServer.started() as server:
        for place, source, target in (("folder", folder, server.url), ("server", server.url, back)):
            got = yield from _read_both(bench, place, source)
            yield _copied(bench, f"{place} to {'server' if place == 'folder' else 'folder'}", source, target, got)


def _read_both(bench: Bench, place: str, source: str) -> Generator[Result, None, _Reading]:
    """Yield the cost of reading compared with `get` in the same pages; return the cost of the `get` with vectors."""
    rows = bench.sizes.large
    got = _Reading(0.0, 0.0)
    for what, ours, theirs in (("documents", "rows", "get"), ("vectors too", "rows-vectors", "get-vectors")):
        runs = [(_reading(ours, source), _reading(theirs, source)) for _ in range(bench.sizes.times)]
        read, got = (_Reading(*map(median, zip(*column, strict=True))) for column in zip(*runs, strict=True))
        yield at_most(
            "copy",
            f"CPU of reading {rows:,} records of a {place}, {what} / of `get` in the same pages; memory",
            read.cpu / got.cpu,
            TIMES,
            unit=f"times; {short(read.memory / got.memory)} times",
            read_us_a_row=read.cpu / rows * 1e6,
            get_us_a_row=got.cpu / rows * 1e6,
            read_mb=read.memory,
            get_mb=got.memory,
        )
    return got


def _copied(bench: Bench, what: str, source: str, target: str, got: _Reading) -> Result:
    rows = bench.sizes.large
    name = f"chroma:{source}#{COLLECTION}"
    command = bench.command("run", name, "--chroma", target, "--collection", COLLECTION, "--keep-vectors", "--json")
    cost = cost_of(command, memory=True)
    return shown(
        "copy",
        f"--keep-vectors, {rows:,} records, {what}: CPU and memory / of `get` with vectors",
        f"{cost.cpu / rows * 1e6:,.0f} us a record, {cost.together:,.0f} MB: "
        f"{short(cost.cpu / got.cpu)} and {short(cost.together / got.memory)} times",
        cpu_s=cost.cpu,
        together_mb=cost.together,
    )


def _reading(way: str, source: str) -> _Reading:
    cost: Cost = cost_of(python("-m", "tests.bench.copying", way, source), memory=True)
    return _Reading(max(float(cost.out), TICK), cost.together)


def _read(source: str, *, vectors: bool) -> Callable[[], None]:
    from upsert_cli.store.collection_source import StoredCollection

    reader = StoredCollection(chroma=source, collection=COLLECTION, with_vectors=vectors, joins_chunks=False)

    def read() -> None:
        for _ in reader.read(row=0, offset=0):
            pass

    return read


def _get(source: str, *, vectors: bool) -> Callable[[], None]:
    import chromadb

    is_server = source.startswith("http")
    host, port = source.removeprefix("http://").rsplit(":", 1) if is_server else ("", "0")
    client = chromadb.HttpClient(host, int(port)) if is_server else chromadb.PersistentClient(source)
    collection = client.get_collection(COLLECTION, embedding_function=None)
    count = collection.count()

    def read() -> None:
        for offset in range(0, count, PAGE):
            collection.get(
                limit=PAGE,
                offset=offset,
                include=["documents", "metadatas", "embeddings"] if vectors else ["documents", "metadatas"],
            )

    return read


WAYS = {
    "rows": partial(_read, vectors=False),
    "rows-vectors": partial(_read, vectors=True),
    "get": partial(_get, vectors=False),
    "get-vectors": partial(_get, vectors=True),
}
MEASURES = {"copy": copying}


def _spent() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    read = WAYS[sys.argv[1]](sys.argv[2])
    began = _spent()
    read()
    print(_spent() - began)
