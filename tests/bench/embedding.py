"""S1, S2, S3: a whole `run` with the real model beside what people do without it, on the same texts and weights."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.bench import Bench
from tests.bench.measuring import Cost, cost_of, interleaved, python
from tests.bench.results import Result, at_least, at_most

TIMES_LESS = 4.0  # CPU
MEMORY_SHARE = 0.2
OVERHEAD = 1.10


def against_chroma(bench: Bench) -> Iterator[Result]:
    """S1: Chroma's own embedding function pads every text to 256 tokens."""
    theirs, ours = _peer(bench, "chroma"), bench.first_load()
    yield at_least(
        "S1",
        f"CPU of a loop with Chroma's own function / `run`, {bench.sizes.texts:,} texts",
        theirs.cpu / ours.cpu,
        TIMES_LESS,
        unit="times",
        peer_cpu_s=theirs.cpu,
        run_cpu_s=ours.cpu,
        peer_mb=theirs.together,
        run_mb=ours.together,
    )


def against_fastembed(bench: Bench) -> Iterator[Result]:
    """S2: fastembed pads to the longest of 256 texts, in the order of the file."""
    theirs, ours = _peer(bench, "fastembed"), bench.first_load()
    raw = {
        "peer_cpu_s": theirs.cpu,
        "run_cpu_s": ours.cpu,
        "peer_mb": theirs.together,
        "run_mb": ours.together,
        "run_largest_mb": ours.largest,
    }
    what = f"of fastembed's defaults / `run`, {bench.sizes.texts:,} texts"
    yield at_least("S2", f"CPU {what}", theirs.cpu / ours.cpu, TIMES_LESS, unit="times", **raw)
    share = ours.together / theirs.together if theirs.together else 1.0
    yield at_most("S2", "peak memory of `run` / of fastembed's defaults", share, MEMORY_SHARE, unit="times", **raw)


def against_the_minimum(bench: Bench) -> Iterator[Result]:
    """S3: what everything but embedding and one upsert a batch adds."""
    source = bench.source(bench.sizes.texts)
    bare, ours = interleaved(
        bench.sizes.times,
        lambda: _peer(bench, "bare", memory=False).cpu,
        lambda: bench.load(source, bench.fresh("run")).cpu,
    )
    yield at_most(
        "S3",
        f"CPU of `run` / the bare minimum, {bench.sizes.texts:,} texts",
        ours / bare,
        OVERHEAD,
        unit="times",
        bare_cpu_s=bare,
        run_cpu_s=ours,
    )


def _peer(bench: Bench, way: str, *, memory: bool = True) -> Cost:
    bench.say(f"loading with {way}")
    source, model = bench.source(bench.sizes.texts), bench.model
    arguments = (way, str(source), str(bench.fresh(way)), str(model.resolve()))
    return cost_of(python("-m", "tests.bench.peers", *arguments), env=bench.chromas_home, memory=memory)


MEASURES = {"S1": against_chroma, "S2": against_fastembed, "S3": against_the_minimum}
