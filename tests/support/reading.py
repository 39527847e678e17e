"""Reading of sources in tests, and strategies for their content."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from upsert_cli.sources.find import find_files
from upsert_cli.sources.item import START, Item, Position, Reject
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source

GOOD = b'{"object_id": "a", "payload": {"text": "hello"}}'

Row = tuple[Item | Reject, Position]

FEW, MANY = 100, 2_000  # examples

numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)
payloads = st.dictionaries(st.text(), values)
"""Any JSON object, with integers beyond 64 bits."""


def write_file(path: Path, content: bytes) -> Path:
    """Write a file, compressed as its suffix says, and return its path."""
    kind = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    if kind is None:
        path.write_bytes(content)
    else:
        with pa.output_stream(path, compression=kind) as file:
            file.write(content)
    return path


def fuzz(
    *, few: int = FEW, **strategies: st.SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that runs a test with few examples, and with many under `-m slow`; all share its fixtures."""
    examples = [few, pytest.param(MANY, marks=pytest.mark.slow)]

    def decorate(check: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(check)
        asked = [each for name, each in signature.parameters.items() if name not in strategies]
        number = inspect.Parameter("examples", inspect.Parameter.KEYWORD_ONLY)

        @wraps(check)
        def test(*, examples: int, **fixtures: Any) -> None:
            @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
            @given(**strategies)
            def draw(**drawn: Any) -> None:
                check(**fixtures, **drawn)

            draw()

        parameters = [*(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in asked), number]
        vars(test)["__signature__"] = signature.replace(parameters=parameters)
        marked: Callable[..., None] = pytest.mark.parametrize("examples", examples)(test)
        return marked

    return decorate


def sources_of(*paths: Path) -> list[Source]:
    return [Source.of(found) for found in find_files([str(path) for path in paths])]


def read(*paths: Path, start: Position = START, id_field: str | None = None) -> list[Row]:
    return list(Rows(sources=sources_of(*paths), start=start, id_field=id_field))


def rows_of(*paths: Path, id_field: str | None = None) -> list[Item | Reject]:
    return [row for row, _ in read(*paths, id_field=id_field)]


def item(row: Item | Reject) -> Item:
    assert isinstance(row, Item), row
    return row


def reject(row: Item | Reject) -> Reject:
    assert isinstance(row, Reject), row
    return row


def write_lines(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def exactly(value: Any) -> str:
    """Return JSON, in which 1, 1.0 and True differ, as they do not under ==."""
    return json.dumps(value, sort_keys=True)


_COUNT = """
import sys
from pathlib import Path
from upsert_cli.sources.find import find_files
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source
rows = Rows(sources=[Source.of(found) for found in find_files([sys.argv[1]])], id_field=sys.argv[2] or None)
kinds = [type(row).__name__ for row, _ in rows]
[peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(kinds.count("Item"), kinds.count("Reject"), int(peak.split()[1]) >> 10)
"""


def read_in_a_process(path: Path, *, id_field: str = "") -> tuple[int, int, int]:
    """Return the items and the rejects of a file, and the peak of memory of a process that reads it, in MiB."""
    command = [sys.executable, "-c", _COUNT, str(path), id_field]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    items, rejects, peak = map(int, done.stdout.split())
    return items, rejects, peak
