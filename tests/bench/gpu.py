"""Measures `--device cuda` in at most six minutes: `python -m tests.bench.gpu --install`.

Compares the vectors with those of the processor, finds the budget of tokens, and loads 50,000 texts, or as many as the
rest of the time allows. `--device cpu --texts 24` only shows that it works.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.bench import SHORT, Bench
from tests.bench.measuring import cost_of, python
from tests.bench.results import Result, as_table, at_most, short, shown
from upsert_cli.embedding.embedder import CUDA_TOKEN_BUDGET, TOKEN_BUDGET

SECONDS = 360  # for all of it, the installation included
LOAD_SHARE = 0.7  # of the seconds that are left; the rest is for Chroma, if it is slower than the model
TEXTS = 50_000
COMPARED = 2_000  # texts, which a processor embeds in some 20 seconds
DIFFERENCE = 1e-3  # of any number of a vector
BUDGETS = (2_048, 8_192, 32_768, 131_072, 524_288)  # padded tokens; 524,288 are 2,048 texts of 256
WINDOW = 4_096  # rows a batch, so that the largest budget is filled
PACKAGE = "onnxruntime-gpu[cuda,cudnn]"


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print a table."""
    options = _parser().parse_args(arguments)
    until = time.monotonic() + SECONDS
    if options.install:
        _install(options.wheels)
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        bench = Bench(folder=Path(folder), sizes=SHORT, say=lambda line: print(line, file=sys.stderr, flush=True))
        print(as_table(_measured(bench, options.device, options.texts, until)))


def _measured(bench: Bench, device: str, texts: int, until: float) -> Iterator[Result]:
    yield _compared(bench, device, min(COMPARED, texts))
    found = {}
    for budget in BUDGETS if device == "cuda" else (TOKEN_BUDGET,):
        cost = _embed(bench, min(TEXTS // 5, texts), device=device, budget=budget)
        found[budget] = 1_000 / cost["wall_ms_a_text"]
        now = " (now)" if budget == CUDA_TOKEN_BUDGET else ""
        yield shown("gpu", f"{budget:,} padded tokens a call{now}", f"{short(found[budget])} texts a second")
    best = max(found, key=found.__getitem__)
    fitting = int(found[best] * (until - time.monotonic()) * LOAD_SHARE)
    yield from _loaded(bench, max(1, min(texts, fitting)), device=device, budget=best)


def _compared(bench: Bench, device: str, texts: int) -> Result:
    """Return the largest difference between a number from the device and the same number from the processor."""
    import numpy as np

    files = {name: bench.folder / f"{name}.npy" for name in ("ours", "theirs")}
    _embed(bench, texts, device="cpu", budget=TOKEN_BUDGET, keep=str(files["ours"]))
    _embed(bench, texts, device=device, budget=CUDA_TOKEN_BUDGET, keep=str(files["theirs"]))
    ours, theirs = (np.load(file) for file in files.values())
    what = f"largest difference of a number in {texts:,} vectors by {device} and by cpu"
    return at_most("gpu", what, float(np.abs(ours - theirs).max()), DIFFERENCE, unit="")


def _loaded(bench: Bench, texts: int, *, device: str, budget: int) -> Iterator[Result]:
    """Load a new collection, and show the rate and how long each stage was busy."""
    cost = bench.load(
        bench.source(texts), bench.fresh("run"), "--device", device, "--token-budget", str(budget), memory=True
    )
    busy: dict[str, float] = dict(bench.task_of(cost)["seconds"])
    total = busy.pop("total")
    yield shown("gpu", f"`run` of {texts:,} texts, {budget:,} padded tokens", f"{short(texts / total)} texts a second")
    yield shown("gpu", "CPU and peak memory of it", f"{short(cost.cpu)} s, {short(cost.together)} MB")
    for stage, seconds in sorted(busy.items(), key=lambda pair: -pair[1]):
        yield shown("gpu", f"{stage}, of {total:.1f} seconds", f"{seconds / total:.0%}")
    yield shown("gpu", "seconds of all stages / of the load: above 1 they overlap", short(sum(busy.values()) / total))


def _embed(bench: Bench, texts: int, **setting: Any) -> dict[str, float]:
    usual = {"source": str(bench.source(texts)), "model": str(bench.model.resolve()), "window": WINDOW, "threads": 1}
    command = python("-m", "tests.bench.sweeps", "embed", json.dumps(usual | setting))
    found: dict[str, float] = json.loads(cost_of(command).out)
    return found


def _install(wheels: Path | None) -> None:
    """Replace onnxruntime by onnxruntime-gpu, which provides the same module."""
    pip = python("-m", "pip", "--disable-pip-version-check", "--quiet")
    origin = [] if wheels is None else ["--no-index", "--find-links", str(wheels)]
    subprocess.run([*pip, "uninstall", "--yes", "onnxruntime"], check=True)
    subprocess.run([*pip, "install", *origin, PACKAGE], check=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("--install", action="store_true", help=f"put {PACKAGE} in the place of onnxruntime first")
    parser.add_argument(
        "--wheels", type=Path, metavar="DIR", help="install from a folder, on a machine without network"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--texts", type=int, default=TEXTS, help="texts to load")
    return parser


if __name__ == "__main__":
    main()
