"""S9: a journal with a long history, compared with the same commands on a short one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measuring import Cost, cost_of, interleaved
from tests.bench.results import Result, at_most
from tests.support.journal_tasks import make_task, segment_at
from upsert_cli.counts import Counts
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.segments import SEGMENT_TASKS
from upsert_cli.journal.task import TaskStatus

SHORT_HISTORY = 10  # tasks
PENDING = 30  # tasks at the end of each journal that are still to be canceled
TURNS = 3  # times as many repetitions as of a load
MILLI = 1_000  # milliseconds a second
LIMITS = {
    "info of the oldest": 50,
    "info of the newest": 50,
    "list": 100,
    "list --status failed": 100,
    "cancel": 20,
    "work": 50,
}
MEMORY = 60  # MB


def long_history(bench: Bench) -> Iterator[Result]:
    """Measure each command in both journals, in turns."""
    tasks = bench.sizes.tasks
    bench.say(f"making a journal of {tasks:,} tasks")
    _write_journal(bench.folder / "journal-long", tasks)
    _write_journal(bench.folder / "journal-short", SHORT_HISTORY)
    peak = 0.0
    for name, limit in LIMITS.items():
        times = TURNS * bench.sizes.times
        costs = [_runner(bench, name, journal) for journal in ("journal-long", "journal-short")]
        seen: list[Cost] = []
        long, short = interleaved(times, *(partial(_kept, seen, run) for run in costs))
        peak = max(peak, *(cost.largest for cost in seen))
        what = f"CPU of `{name}` with {tasks:,} tasks, beyond start-up"
        raw = {"long_cpu_ms": long * MILLI, "short_cpu_ms": short * MILLI}
        yield at_most("S9", what, max(0.0, long - short) * MILLI, limit, unit="ms", **raw)
    yield at_most("S9", f"peak memory of these commands with {tasks:,} tasks", peak, MEMORY, unit="MB")


def _runner(bench: Bench, name: str, journal: str) -> Callable[[], Cost]:
    total = bench.sizes.tasks if journal == "journal-long" else SHORT_HISTORY
    pending = iter(range(PENDING))
    words: dict[str, Callable[[], list[str]]] = {
        "info of the oldest": lambda: ["info", "task-0"],
        "info of the newest": lambda: ["info", f"task-{total - 1}"],
        "list": lambda: ["list"],
        "list --status failed": lambda: ["list", "--status", "failed"],
        "work": lambda: ["work"],  # nothing is queued, which takes the longest to find out
        "cancel": lambda: ["cancel", f"pending-{next(pending)}"],
    }
    return lambda: cost_of(bench.command(*words[name](), journal=journal), memory=True)


def _kept(seen: list[Cost], run: Callable[[], Cost]) -> float:
    seen.append(cost := run())
    return cost.cpu


def _write_journal(folder: Path, tasks: int) -> None:
    """Write whole segments at once; one task after the other would take minutes."""
    journal = Journal(folder)
    journal.create(make_task("first"))  # prepares the folder
    done = make_task(
        "t", status=TaskStatus.DONE, rows=100, counts=Counts(read=100, inserted=100), finished_at="2026-11-23T21:04:12Z"
    )
    for number, start in enumerate(range(0, tasks, SEGMENT_TASKS), 1):
        records = [
            replace(done, id=f"task-{place}").as_record() for place in range(start, min(start + SEGMENT_TASKS, tasks))
        ]
        segment_at(folder, number).insert(*records)
    for number in range(PENDING):
        journal.create(make_task(f"pending-{number}"))


MEASURES = {"S9": long_history}
