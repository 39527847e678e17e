"""How long each stage of a load is busy, and how much longer the load takes than the busiest of them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.bench import Bench
from tests.bench.memory import large_load
from tests.bench.results import Result, at_most, shown

SLOWER = 1.05  # times the slowest stage
EDGES = ("opening", "loading", "flushing")  # before the first batch and after the last, where nothing overlaps


def stages(bench: Bench) -> Iterator[Result]:
    """Show the busy and idle time of each stage, of a load with the real model and one with the tiny one."""
    rows = bench.sizes.large
    tiny = large_load(bench, rows)
    for name, cost in (("real model", bench.first_load()), (f"tiny model, {rows:,} rows", tiny)):
        busy: dict[str, float] = dict(bench.task_of(cost).get("seconds", {}))
        if not (total := busy.pop("total", 0.0)):
            yield shown("stages", f"seconds that stages are busy, {name}", "`info --json` does not say")
            continue
        parts = ", ".join(f"{stage} {spent:.1f}" for stage, spent in sorted(busy.items(), key=lambda pair: -pair[1]))
        idle = {f"{stage}_idle_s": round(total - spent, 3) for stage, spent in busy.items()}
        yield shown("stages", f"wall seconds that stages are busy, {name}", f"{parts}; {total:.1f} in all", **idle)
        flow = {stage: spent for stage, spent in busy.items() if stage not in EDGES}
        # These are first loads, in which the model is loaded while the collection is opened.
        start = max(busy.get("opening", 0.0), busy.get("loading", 0.0))
        ratio = (total - start - busy.get("flushing", 0.0)) / max([*flow.values(), 1e-9])
        yield at_most(
            "stages",
            f"wall time of a load between its start and its flush / of its slowest stage, {name}",
            ratio,
            SLOWER,
            unit="times",
        )


MEASURES = {"stages": stages}
