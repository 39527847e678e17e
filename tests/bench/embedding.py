"""S1, S2, S2b, S3: a whole `run` with the real model, compared with other programs on the same texts and weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measuring import Cost, cost_of, interleaved, python
from tests.bench.results import Result, at_least, at_most, short, shown
from upsert_cli.embedding.openvino import bf16_fault
from upsert_cli.packages import is_installed

TIMES_LESS = 4.0  # CPU
TIMES_LESS_BF16 = 6.0
MEMORY_SHARE = 0.1
OVERHEAD = 1.10
OTHERS = {
    "sentence-transformers": ("sentence_transformers", 3.0, 5.0),
    "LangChain": ("langchain_huggingface", 3.5, 6.0),
}
"""The package of each, and how many times less CPU is to be reached in fp32 and in bf16."""


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
    if bf16_fault() is None:
        fast = bench.first_load("bf16")
        what = f"CPU of a loop with Chroma's own function / `run` in bf16, {bench.sizes.texts:,} texts"
        yield at_least("S1", what, theirs.cpu / fast.cpu, TIMES_LESS_BF16, unit="times", run_cpu_s=fast.cpu)


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
    if bf16_fault() is None:
        fast = bench.first_load("bf16")
        figure = f"{short(theirs.cpu / fast.cpu)} times the CPU, {short(fast.together)} MB"
        yield shown("S2", "fastembed's defaults / `run` in bf16", figure, run_cpu_s=fast.cpu, run_mb=fast.together)


def against_others(bench: Bench) -> Iterator[Result]:
    """S2b: libraries on torch, if they are installed, with the same weights."""
    for way, (package, *reach) in OTHERS.items():
        if not is_installed(package):
            yield shown("S2b", way, "not installed; `pip install -e '.[peers]'`")
            continue
        theirs = _peer(bench, way, model=bench.torch_model)
        for precision, times in zip(("fp32", "bf16"), reach, strict=True):
            if precision == "bf16" and (fault := bf16_fault()) is not None:
                yield shown("S2b", f"{way} / `run` in bf16", fault)
                continue
            ours = bench.first_load(precision)
            raw = {
                "peer_cpu_s": theirs.cpu,
                "run_cpu_s": ours.cpu,
                "peer_mb": theirs.together,
                "run_mb": ours.together,
            }
            what = f"CPU of {way} / `run` in {precision}, {bench.sizes.texts:,} texts"
            yield at_least("S2b", what, theirs.cpu / ours.cpu, times, unit="times", **raw)
            figure = f"{short(theirs.together)} and {short(ours.together)} MB"
            yield shown("S2b", f"peak memory of {way} and of `run` in {precision}", figure, **raw)


def against_the_minimum(bench: Bench) -> Iterator[Result]:
    """S3: measure the overhead beyond embedding and one upsert per batch."""
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


def _peer(bench: Bench, way: str, *, model: Path | None = None, memory: bool = True) -> Cost:
    bench.say(f"loading with {way}")
    source, model = bench.source(bench.sizes.texts), model or bench.model
    arguments = (way, str(source), str(bench.fresh(way)), str(model.resolve()))
    return cost_of(python("-m", "tests.bench.peers", *arguments), env=bench.chromas_home, memory=memory)


MEASURES = {"S1": against_chroma, "S2": against_fastembed, "S2b": against_others, "S3": against_the_minimum}
