"""S4, S6, S6b: a file that was loaded before, unchanged, a little changed, and with other metadata.

The collection is filled through the tiny model, which has the real one's name and so its identity: what the real model
finds there is what it would have left itself, but for the numbers in the vectors. Start-up, which a load has once, is
measured as the same load of a file with a single row, and taken off where a figure is CPU an item.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measuring import CommandFailed, cost_of, interleaved, python
from tests.bench.results import Result, at_least, at_most

TIMES_LESS = 500.0
MOST_MICROSECONDS = 15.0
TIMES_THE_CHANGE = 1.5
METADATA_SHARE = 0.1
CHANGED = 100  # every n-th row is changed
MICRO = 1e6  # microseconds a second


def unchanged(bench: Bench) -> Iterator[Result]:
    """S4, S4b: nothing is embedded or written, rows are read, hashed and compared."""
    again, start = _reload_and_start(bench)
    rows = bench.sizes.rows
    first, item = bench.first_load_item(), max(again - start, 1e-9) / rows
    yield at_least(
        "S4b",
        f"CPU an item of a first load / of an unchanged one, {rows:,} rows, without start-up",
        first / item,
        TIMES_LESS,
        unit="times",
        first_us_an_item=first * MICRO,
        unchanged_us_an_item=item * MICRO,
        reload_cpu_s=again,
        start_cpu_s=start,
    )
    yield at_most("S4", "CPU of an unchanged row, without start-up", item * MICRO, MOST_MICROSECONDS, unit="us")


def one_percent(bench: Bench) -> Iterator[Result]:
    """S6: one per cent is embedded and written."""
    rows = bench.sizes.rows
    count = max(1, rows // CHANGED)
    changed = _only_changed(bench, rows, count)
    embed = cost_of(
        python("-m", "tests.bench.peers", "embed", str(changed), "-", str(bench.model.resolve())),
        env=bench.chromas_home,
    ).cpu
    again, _ = _reload_and_start(bench)
    cost = bench.load(bench.source(rows, changed=count), bench.loaded(rows))
    _expect(bench.task_of(cost), updated=count)
    yield at_most(
        "S6",
        f"CPU with {count:,} of {rows:,} rows changed / embedding these and an unchanged load",
        cost.cpu / (embed + again),
        TIMES_THE_CHANGE,
        unit="times",
        changed_cpu_s=cost.cpu,
        embed_cpu_s=embed,
        unchanged_cpu_s=again,
    )


def other_metadata(bench: Bench) -> Iterator[Result]:
    """S6b: all rows get other metadata, and none is embedded."""
    rows = bench.sizes.rows
    cost = bench.load(bench.source(rows, revision=1), bench.loaded(rows))
    task = bench.task_of(cost)
    _expect(task, updated=rows)
    yield at_most(
        "S6b",
        f"CPU with all metadata changed / a first load, {rows:,} rows",
        cost.cpu / (bench.first_load_item() * rows),
        METADATA_SHARE,
        unit="times",
        metadata_cpu_s=cost.cpu,
        first_us_an_item=bench.first_load_item() * MICRO,
        metadata_us_an_item=cost.cpu / rows * MICRO,
    )
    embedding = task.get("seconds", {}).get("embedding", 0.0)
    yield at_most("S6b", "seconds of embedding meanwhile", embedding, 0.0, unit="s")


def _reload_and_start(bench: Bench) -> tuple[float, float]:
    """Return the CPU seconds of loading all rows again, and of loading one of them again."""
    rows = bench.sizes.rows

    def load(source: Path) -> float:
        cost = bench.load(source, chroma)
        _expect(bench.task_of(cost), inserted=0, updated=0)
        return cost.cpu

    chroma = bench.made("reloaded", lambda path: bench.loaded(rows).rename(path))
    again, start = interleaved(bench.sizes.times, lambda: load(bench.source(rows)), lambda: load(bench.source(1)))
    return again, start


def _only_changed(bench: Bench, rows: int, count: int) -> Path:
    """Return a file with just the rows that differ from those of the plain file."""

    def write(path: Path) -> None:
        with bench.source(rows).open() as before, bench.source(rows, changed=count).open() as after:
            path.write_text("".join(new for old, new in zip(before, after, strict=True) if old != new))

    return bench.made(f"changed-{rows}-{count}.jsonl", write)


def _expect(task: dict[str, object], **counts: int) -> None:
    found = task["counts"]
    if not isinstance(found, dict) or any(found[name] != count for name, count in counts.items()):
        raise CommandFailed(f"the load did something else than it should: {found}, not {counts}")


MEASURES = {"S4": unchanged, "S6": one_percent, "S6b": other_metadata}
