"""`python -m tests.bench`: measures the rows of the scorecard and prints a table, or JSON."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from tests.bench import (
    constants,
    copying,
    embedding,
    flushing,
    growth,
    journal,
    memory,
    overlap,
    precision,
    reading,
    reloading,
    resuming,
    servers,
    startup,
    workers,
    writing,
)
from tests.bench.bench import MEASURE, SHORT, Bench, Sizes
from tests.bench.measuring import CommandFailed
from tests.bench.results import Result, as_json, as_table, shown

ON_REQUEST = ("R8", "ray-cost", "ray-scaling")  # S5 again unless it is given more rows; these start a cluster
REASON = 500  # characters of why a row could not be measured
MEASURES: dict[str, MEASURE] = {
    **embedding.MEASURES,
    **precision.MEASURES,
    **reloading.MEASURES,
    **memory.MEASURES,
    **startup.MEASURES,
    **resuming.MEASURES,
    **journal.MEASURES,
    **reading.MEASURES,
    **flushing.MEASURES,
    **overlap.MEASURES,
    **servers.MEASURES,
    **growth.MEASURES,
    **workers.MEASURES,
    **writing.MEASURES,
    **copying.MEASURES,
    **constants.MEASURES,
}


def main(arguments: list[str] | None = None) -> None:
    """Measure the requested rows."""
    options = _parser().parse_args(arguments)
    rows = _rows(options)
    if options.growth and find_spec("matplotlib") is None:
        _parser().error("--growth draws a plot, which needs matplotlib: pip install -e '.[bench]'")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder:
        bench = Bench(
            folder=Path(folder), sizes=_sizes(options), say=_say, plot=growth.PLOT if options.growth else None
        )
        results = list(_measured(bench, rows))
    print(as_json(results) if options.json else as_table(results))


def _measured(bench: Bench, names: list[str]) -> Iterator[Result]:
    for name in names:
        _say(name)
        try:
            for result in MEASURES[name](bench):
                _say(f"  {': '.join(result.cells()[1:3])}")
                yield result
        except (CommandFailed, OSError, ValueError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            yield shown(name, "could not be measured", reason[-REASON:])


def _rows(options: argparse.Namespace) -> list[str]:
    """Return the names of the rows to measure; `S5` stands for all rows that begin with it."""
    if options.growth:
        return list(growth.MEASURES)
    usual = constants.MEASURES if options.constants else MEASURES.keys() - constants.MEASURES.keys() - set(ON_REQUEST)
    asked = options.only or [name for name in MEASURES if name in usual]
    found = {one: [name for name in MEASURES if name == one or name.startswith(f"{one}-")] for one in asked}
    if unknown := [one for one, names in found.items() if not names]:
        _parser().error(f"there is no row {', '.join(unknown)}; there are {' '.join(MEASURES)}")
    return [name for names in found.values() for name in names]


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = SHORT if options.short else Sizes()
    given = {name: getattr(options, name) for name in ("texts", "rows", "large", "tasks", "times")}
    return replace(sizes, **{name: value for name, value in given.items() if value is not None})


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="ROW", help="one row, such as S3; repeatable")
    parser.add_argument("--growth", action="store_true", help="measure growth alone, and draw its plot (`bench` extra)")
    parser.add_argument("--constants", action="store_true", help="what the package's constants are based on")
    parser.add_argument("--short", action="store_true", help="small sizes, which only show that it works")
    parser.add_argument("--json", action="store_true", help="an array of objects with all raw figures")
    parser.add_argument("--texts", type=int, help="texts that the real model embeds (S1 to S3)")
    parser.add_argument("--rows", type=int, help="rows that are loaded again (S4, S6), read (S10)")
    parser.add_argument("--large", type=int, help="rows of the large collection (S5, flush)")
    parser.add_argument("--tasks", type=int, help="tasks of the large journal (S9)")
    parser.add_argument("--times", type=int, help="repetitions; the median counts")
    parser.add_argument("--folder", type=Path, help="where to work; some GB for the large rows")
    return parser


if __name__ == "__main__":
    main()
