"""The benchmarks work: they measure and print. These tests do not check the figures."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.forked import run_python
from upsert_cli.packages import is_installed

ROOT = Path(__file__).parent.parent.parent
SIZES = ("--short", "--texts", "12", "--rows", "40", "--large", "100", "--tasks", "20")


def _bench(*arguments: str) -> str:
    return _printed("tests.bench", *SIZES, *arguments)


def _printed(module: str, *arguments: str) -> str:
    done = run_python([sys.executable, "-m", module, *arguments], folder=ROOT, environment=os.environ)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_the_table_has_each_row_with_its_figure() -> None:
    """Each row is printed with its title, figure, target, and whether the target was met."""
    table = [[cell.strip() for cell in line.split("|")] for line in _bench("--only", "S7").splitlines()]
    assert table[0][1:-1] == ["row", "what", "figure", "reach", "met"]
    assert [line[1] for line in table[2:]] == ["S7"] * 5
    assert all(line[3].split()[0] and line[5] in ("yes", "NO") for line in table[2:])


def test_json_has_all_that_was_measured() -> None:
    """The peers and a load are run for real, and the raw figures of both are in the JSON."""
    rows = json.loads(_bench("--only", "S3", "--only", "S10", "--json"))
    assert [row["row"] for row in rows] == ["S3", "S10", "S10"]
    assert rows[0]["raw"]["bare_cpu_s"] > 0
    assert rows[0]["raw"]["run_cpu_s"] > 0


@pytest.mark.skipif(is_installed("sentence_transformers"), reason="the other ways to load are installed")
def test_ways_that_are_not_installed_are_left_out() -> None:
    """The row says how to install them, and the benchmark goes on."""
    rows = json.loads(_bench("--only", "S2b", "--json"))
    assert [row["what"] for row in rows] == ["sentence-transformers", "LangChain"]
    assert all("pip install -e '.[peers]'" in row["figure"] for row in rows)


def test_the_script_for_a_gpu_runs_on_a_processor() -> None:
    """It compares vectors, embeds, loads, and prints the share of each stage."""
    table = _printed("tests.bench.gpu", "--device", "cpu", "--texts", "12")
    assert re.search(r"largest difference .* \| yes", table)
    assert re.search(r"`run` of \d+ texts", table)
    assert "writing" in table


@pytest.mark.slow
def test_every_row_can_be_measured() -> None:
    """No row of the short form fails."""
    rows = json.loads(_bench("--json"))
    assert [row["figure"] for row in rows if row["what"] == "could not be measured"] == []
    assert {row["row"] for row in rows} >= {f"S{number}" for number in range(1, 11)}


def test_an_unknown_row_is_refused() -> None:
    """An unknown row ends in a message that lists the known ones."""
    done = run_python([sys.executable, "-m", "tests.bench", "--only", "S99"], folder=ROOT, environment=os.environ)
    assert done.returncode == 2
    assert b"S10" in done.stderr
