"""Collections as sources: what reading one costs beside plain `get`, and what a copy costs a record.

`chroma copy` goes only to Chroma Cloud and back, so it is not measured here. Each way of reading is a program that
prints its CPU seconds and those of its children: `python -m tests.bench.copying WAY FOLDER`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measuring import Cost, cost_of, interleaved, python
from tests.bench.results import Result, at_most, shown
from tests.support.chroma_server import ChromaServer

PAGE = 1_000  # records, as in `store/collection_source.py`
TIMES = 2.0
COLLECTION = "default"


def copying(bench: Bench) -> Iterator[Result]:
    """Read a collection with and without vectors, beside `get`; then copy it to a server and back."""
    rows = bench.sizes.large
    folder = bench.loaded(rows)
    for what, ours, theirs in (("documents", "rows", "get"), ("vectors too", "rows-vectors", "get-vectors")):
        runs = (partial(_seconds, ours, folder), partial(_seconds, theirs, folder))
        read, got = interleaved(bench.sizes.times, *runs)
        yield at_most(
            "copy",
            f"CPU of reading {rows:,} records, {what} / of `get` in the same pages",
            read / got,
            TIMES,
            unit="times",
            read_us_a_row=read / rows * 1e6,
            get_us_a_row=got / rows * 1e6,
        )
    with ChromaServer.started() as server:
        for what, source, target in (
            ("folder to server", f"chroma:{folder}#{COLLECTION}", server.url),
            ("server to folder", f"chroma:{server.url}#{COLLECTION}", str(bench.fresh("back"))),
        ):
            yield _copied(what, rows, _copy(bench, source, target))


def _copied(what: str, rows: int, cost: Cost) -> Result:
    figure = f"{cost.cpu / rows * 1e6:,.0f} us of CPU a record, {cost.together:,.0f} MB"
    return shown("copy", f"--keep-vectors, {rows:,} records, {what}", figure, cpu_s=cost.cpu, together_mb=cost.together)


def _copy(bench: Bench, source: str, target: str) -> Cost:
    command = bench.command("run", source, "--chroma", target, "--collection", COLLECTION, "--keep-vectors", "--json")
    return cost_of(command, memory=True)


def _seconds(way: str, folder: Path) -> float:
    return float(cost_of(python("-m", "tests.bench.copying", way, str(folder))).out)


def _read(folder: Path, *, vectors: bool) -> Callable[[], None]:
    from upsert_cli.store.collection_source import StoredCollection

    reader = StoredCollection(chroma=str(folder), collection=COLLECTION, with_vectors=vectors, joins_chunks=False)

    def read() -> None:
        for _ in reader.read(row=0, offset=0):
            pass

    return read


def _get(folder: Path, *, vectors: bool) -> Callable[[], None]:
    import chromadb

    collection = chromadb.PersistentClient(str(folder)).get_collection(COLLECTION, embedding_function=None)
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
    read = WAYS[sys.argv[1]](Path(sys.argv[2]))
    began = _spent()
    read()
    print(_spent() - began)
