"""`--metrics-file`: what Prometheus is told, of which collection, and what happens when it cannot be told."""

from __future__ import annotations

import re
import threading
import time
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
from upsert_cli.report.prometheus import LoadEnd, write_metrics

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


def _ending(**fields: Any) -> LoadEnd:
    made: dict[str, Any] = {"collection": "default", "chroma": "/data/chroma", "exit_code": 0, "seconds": 2.5,
                            "moment": 1_000.0, "is_success": True, "rows": Counts(read=3, inserted=3).as_json()}  # fmt: skip
    return LoadEnd(**(made | fields))


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
    """Also with -q it is said, and the exit code stays that of the load."""
    tiny.write("a.jsonl", [ITEM])
    done = tiny.type("upsert-cli run a.jsonl -q --metrics-file missing/load.prom")
    assert re.match(r"error: the metrics in missing/load\.prom were not written.*No such file", done.stderr)


@pytest.mark.parametrize("content", ["node_load1 0.5\n", "upsert_cli_else{} 1\n", "not metrics\n", "\udcff"])
def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path, content: str) -> None:
    """What is not ours would be lost, so such a file is refused."""
    path = tmp_path / "node.prom"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UpsertCliError, match=r"else than metrics|no metric of upsert-cli's"):
        write_metrics(path, _ending())
    assert path.read_bytes() == content.encode("utf-8", "surrogateescape")


@settings(max_examples=30, deadline=None)  # each writes ten files to the disk
@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5, unique=True))
def test_any_name_of_a_collection_survives(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    """Quotes, backslashes and line breaks in labels are escaped, and read back when the next load adds its own."""
    path = tmp_path_factory.mktemp("metrics") / "load.prom"
    for moment, name in enumerate(names, 1):
        write_metrics(path, _ending(collection=name, moment=float(moment)))
    for moment, name in enumerate(names, 1):
        # Again with what is there already: nothing is doubled, nothing lost.
        write_metrics(path, _ending(collection=name, moment=float(moment), is_success=False, exit_code=1))
    text = path.read_bytes().decode()
    assert text.count("upsert_cli_last_run_exit_code{") == len(names)
    assert text.count("upsert_cli_last_success_timestamp_seconds{") == len(names)
    assert all(line.startswith(("#", "upsert_cli_")) for line in text.removesuffix("\n").split("\n"))


def test_an_older_end_does_not_replace_a_later_one(tmp_path: Path) -> None:
    """A task of last week that is asked for again, and done already, tells nothing new; a clock that was wrong heals."""
    path = tmp_path / "load.prom"
    write_metrics(path, _ending(moment=2_000.0))
    write_metrics(path, _ending(moment=1_000.0, exit_code=1))
    assert _samples(path)["run_timestamp_seconds", "default"] == 2_000
    write_metrics(path, _ending(moment=time.time() + 9_000))
    write_metrics(path, _ending(moment=3_000.0))
    assert _samples(path)["run_timestamp_seconds", "default"] == 3_000


def test_loads_that_end_together_both_tell(tmp_path: Path) -> None:
    """Whoever writes the same file at the same time, no collection is lost."""
    path = tmp_path / "load.prom"
    endings = [_ending(collection=f"c{number}") for number in range(20)]
    threads = [threading.Thread(target=write_metrics, args=(path, ending)) for ending in endings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key[1] for key in _samples(path)} == {ending.collection for ending in endings}


@pytest.mark.parametrize(("code", "success"), [(0, True), (3, True), (1, False)])
def test_a_task_is_a_success_when_it_is_done(code: int, success: bool) -> None:
    """Rejects are counted and make no failure; with --strict, or a --verify that found something, they do."""
    task = make_task(status=TaskStatus.DONE, finished_at="2026-11-25T03:00:00Z", seconds={"total": 7.0})
    ending = LoadEnd.of_task(task, exit_code=code, seconds=1.0)
    assert (ending.is_success, ending.seconds, ending.moment) == (success, 7.0, 1_795_575_600.0)
