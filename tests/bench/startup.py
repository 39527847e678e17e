"""S7: the cost of `list` and `info`, compared with importing the two libraries that they need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.bench.bench import Bench
from tests.bench.measuring import cost_of, interleaved, python
from tests.bench.results import Result, at_most
from tests.support.journal_tasks import make_task
from upsert_cli.journal.journal import Journal

TIMES = 2.0  # times the CPU of importing click and tinydb, which no command can do without
TURNS = 3  # times as many repetitions as of a load: a start takes a tenth of a second
HEAVY = ("chromadb", "fastembed", "onnxruntime", "pyarrow", "numpy")


def start_up(bench: Bench) -> Iterator[Result]:
    """Measure each command that must start quickly."""
    _write_journal(bench.folder / "journal-start", canceled=TURNS * bench.sizes.times)
    commands = {
        "--help": python("-m", "upsert_cli", "--help"),
        "list": bench.command("list", journal="journal-start"),
        "info": bench.command("info", "task-0", journal="journal-start"),
    }
    for command in commands.values():
        cost_of(command)  # compiles the rest
    ids = iter(range(TURNS * bench.sizes.times))
    base, canceling, *costs = interleaved(
        TURNS * bench.sizes.times,
        lambda: cost_of(python("-c", "import click, tinydb")).cpu,
        lambda: cost_of(bench.command("cancel", f"task-{next(ids)}", journal="journal-start")).cpu,
        *(lambda command=command: cost_of(command).cpu for command in commands.values()),
    )
    for name, cost in [*zip(commands, costs, strict=True), ("cancel", canceling)]:
        yield at_most(
            "S7",
            f"CPU of `{name}` / of `import click, tinydb`",
            cost / base,
            TIMES,
            unit="times",
            command_cpu_s=cost,
            import_cpu_s=base,
        )
    heavy = {name for command in commands.values() for name in _heavy_imports(command)}
    what = "heavy packages that they import"
    yield at_most("S7", f"{what}: {', '.join(sorted(heavy)) or 'none'}", len(heavy), 0, unit="packages")


def _heavy_imports(command: list[str]) -> set[str]:
    timed = cost_of([command[0], "-X", "importtime", *command[1:]])
    found = set(re.findall(r"\| +([a-z_]+)$", timed.err, re.MULTILINE))
    return found & set(HEAVY)


def _write_journal(folder: Path, *, canceled: int) -> None:
    journal = Journal(folder)
    for number in range(canceled):
        journal.create(make_task(f"task-{number}"))


MEASURES = {"S7": start_up}
