"""`--metrics-file`: the figures for Prometheus, their collection, and failures to write them."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.journal_tasks import make_task
from tests.support.terminal import Terminal
from upsert_cli.counts import Counts
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.task import TaskStatus
from upsert_cli.report.prometheus import write_metrics

ITEM = {"object_id": "a", "payload": {"text": "x"}}
SAMPLE = re.compile(
    r'^(\w+)\{chroma="((?:[^"\\]|\\.)*)",collection="((?:[^"\\]|\\.)*)"(?:,outcome="(\w+)")?\} ([\d.]+)$'
)


def _samples(path: Path) -> dict[tuple[str, ...], float]:
    """Read a file as Prometheus does: by name without the prefix, collection and outcome."""
    samples = {}
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            match = SAMPLE.match(line)
            assert match, line
            name = match[1].removeprefix("upsert_cli_").removeprefix("last_")
            samples[name, match[3], *([match[4]] if match[4] else [])] = float(match[5])
    return samples


def _write_end(path: Path, *, moment: float = 1_000.0, exit_code: int = 0, **fields: Any) -> None:
    """Write the metrics of a task that was done at a moment."""
    finished = datetime.fromtimestamp(moment, UTC).isoformat()
    task = make_task(status=TaskStatus.DONE, finished_at=finished, counts=Counts(read=3, inserted=3), **fields)
    write_metrics(path, task, exit_code=exit_code, seconds=2.5)


def test_loads_tell_how_they_ended(tiny: Terminal) -> None:
    """Two collections in one file: a load, one with a reject, one that fails, and one that had nothing to do."""
    path = tiny.folder / "load.prom"
    tiny.write("a.jsonl", [ITEM])
    tiny.write("b.jsonl", [ITEM, {"object_id": ""}])
    began = time.time()
    tiny.type("upsert-cli run a.jsonl --task-id t --metrics-file load.prom")
    first = _samples(path)
    assert began - 1 <= first["success_timestamp_seconds", "default"] == first["run_timestamp_seconds", "default"]
    assert first["run_exit_code", "default"] == 0
    assert first["run_duration_seconds", "default"] > 0
    assert {name[2]: rows for name, rows in first.items() if name[0] == "run_rows"} == {
        "inserted": 1, "updated": 0, "unchanged": 0, "duplicate": 0, "failed": 0,
    }  # fmt: skip
    tiny.type("upsert-cli categories run b.jsonl --metrics-file load.prom", expect=3)
    second = _samples(path)
    assert second["run_rows", "categories", "failed"] == 1
    assert second["success_timestamp_seconds", "categories"] >= began - 1
    assert {key: value for key, value in second.items() if key[1] == "default"} == first
    tiny.type("upsert-cli run a.jsonl --task-id t --metrics-file load.prom")  # is done already
    assert _samples(path) == second
    refused = tiny.type("upsert-cli run b.jsonl --task-id t --metrics-file load.prom", expect=4)
    assert "metrics" not in refused.stderr
    third = _samples(path)
    assert third["run_exit_code", "default"] == 4
    assert third["success_timestamp_seconds", "default"] == first["success_timestamp_seconds", "default"]
    assert ("run_rows", "default", "inserted") not in third
    text = path.read_text()
    assert text.endswith("\n")
    assert len(re.findall(r"^# TYPE (\S+) gauge$", text, re.M)) == len(set(re.findall(r"^upsert_cli_\w+", text, re.M)))
    assert [each.name for each in tiny.folder.glob(".load*")] == []


def test_metrics_that_cannot_be_written_are_named_and_change_no_exit_code(tiny: Terminal) -> None:
    """The failure is reported even with -q, and the exit code is the load's."""
    tiny.write("a.jsonl", [ITEM])
    done = tiny.type("upsert-cli run a.jsonl -q --metrics-file missing/load.prom")
    assert re.match(r"error: the metrics in missing/load\.prom were not written.*No such file", done.stderr)


@pytest.mark.parametrize("content", ["node_load1 0.5\n", "upsert_cli_else{} 1\n", "not metrics\n", "\udcff"])
def test_a_file_of_another_program_is_left_alone(tmp_path: Path, content: str) -> None:
    """A file that this tool did not write is refused, since its content would be lost."""
    path = tmp_path / "node.prom"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UpsertCliError, match=r"other than metrics|no metric of upsert-cli's"):
        _write_end(path)
    assert path.read_bytes() == content.encode("utf-8", "surrogateescape")


@settings(max_examples=30, deadline=None)  # each writes ten files to the disk
@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5, unique=True))
def test_any_name_of_a_collection_survives(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """Quotes, backslashes and line breaks in labels are escaped, and read back when the next load adds its own."""
    path = tmp_path_factory.mktemp("metrics") / "load.prom"
    for moment, name in enumerate(names, 1):
        _write_end(path, collection=name, moment=float(moment))
    for moment, name in enumerate(names, 1):
        # Again with the existing content: nothing is doubled or lost.
        _write_end(path, collection=name, moment=float(moment), exit_code=1)
    text = path.read_bytes().decode()
    assert text.count("upsert_cli_last_run_exit_code{") == len(names)
    assert text.count("upsert_cli_last_success_timestamp_seconds{") == len(names)
    assert all(line.startswith(("#", "upsert_cli_")) for line in text.removesuffix("\n").split("\n"))


def test_an_older_end_does_not_replace_a_later_one(tmp_path: Path) -> None:
    """Asking again for last week's finished task changes nothing; a wrong clock is corrected by the next load."""
    path = tmp_path / "load.prom"
    _write_end(path, moment=2_000.0)
    _write_end(path, moment=1_000.0, exit_code=1)
    assert _samples(path)["run_timestamp_seconds", "default"] == 2_000
    _write_end(path, moment=time.time() + 9_000)
    _write_end(path, moment=3_000.0)
    assert _samples(path)["run_timestamp_seconds", "default"] == 3_000


def test_loads_that_end_together_both_tell(tmp_path: Path) -> None:
    """If two loads write the same file at the same time, no collection is lost."""
    path = tmp_path / "load.prom"
    names = {f"c{number}" for number in range(20)}
    threads = [threading.Thread(target=_write_end, args=(path,), kwargs={"collection": name}) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key[1] for key in _samples(path)} == names


@pytest.mark.parametrize(("code", "success"), [(0, True), (3, True), (1, False)])
def test_a_task_is_a_success_when_it_is_done(tmp_path: Path, code: int, success: bool) -> None:
    """Rejects are counted and make no failure; with --strict, or a --verify that found something, they do."""
    path = tmp_path / "load.prom"
    task = make_task(status=TaskStatus.DONE, finished_at="2026-11-25T03:00:00Z", seconds={"total": 7.0})
    write_metrics(path, task, exit_code=code, seconds=1.0)
    samples = _samples(path)
    assert samples["run_duration_seconds", "default"] == 7.0
    assert samples["run_timestamp_seconds", "default"] == 1_795_575_600.0
    assert (("success_timestamp_seconds", "default") in samples) == success
