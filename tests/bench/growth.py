"""How cost grows with the number of rows: first loads through the tiny model, and a plot of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.memory import large_load
from tests.bench.results import Result, shown

PARTS = (1_000, 300, 100, 30, 10, 1)  # of the largest number of rows
PLOT = Path(__file__).parent / "growth.png"


def growth(bench: Bench) -> Iterator[Result]:
    """Measure CPU and memory at growing numbers of rows."""
    points = []
    for part in PARTS:
        rows = max(1, bench.sizes.large // part)
        cost = large_load(bench, rows)
        points.append((rows, cost.cpu / rows * 1_000, cost.together))
        yield shown(
            "growth",
            f"a first load of {rows:,} rows, tiny model",
            f"{cost.cpu / rows * 1_000:.2f} ms of CPU a row, {cost.together:,.0f} MB",
            cpu_s=cost.cpu,
            together_mb=cost.together,
            largest_process_mb=cost.largest,
        )
    if bench.plot is not None:
        _draw(points, bench.plot)
        bench.say(f"drew {bench.plot}")


def _draw(points: list[tuple[int, float, float]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows, cpu, memory = zip(*points, strict=True)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5))
    for axes, values, title in ((left, cpu, "CPU a row (ms)"), (right, memory, "peak memory (MB)")):
        axes.plot(rows, values, marker="o")
        axes.set(xscale="log", xlabel="rows", title=title)
        axes.grid(visible=True, alpha=0.3)
    right.plot(rows, [700 + 0.002 * row for row in rows], linestyle="--", label="limit (S5)")
    right.legend()
    left.set_ylim(bottom=0)
    right.set_ylim(bottom=0)
    figure.suptitle("A first load through the tiny model: Chroma and everything but the model")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


MEASURES = {"growth": growth}
