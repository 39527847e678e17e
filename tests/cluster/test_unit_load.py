"""A load in units equals a load without them in any order of units and with any deaths; the journal is the truth."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.terminal import Terminal
from tests.support.worker_standin import StandIns
from upsert_cli.cluster import unit_load
from upsert_cli.cluster.scheduler import Scheduler
from upsert_cli.cluster.unit_load import load_units
from upsert_cli.cluster.worker import Spec, UnitRunner
from upsert_cli.context import RunContext
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.errors import SourceUnreadable, UpsertCliError
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.receipts import Receipt, Receipts
from upsert_cli.journal.task import Task, TaskStatus
from upsert_cli.load.commit import Committer
from upsert_cli.load.open import open_task
from upsert_cli.load.request import LoadRequest
from upsert_cli.load.resources import Resources
from upsert_cli.sources.rows import Unit, plan_units

UNIT = 16  # rows


class _Load:
    """A load into a local folder, in units that one process does."""

    def __init__(self, terminal: Terminal, tiny_model: Path, *names: str, max_failures: str | None = None) -> None:
        self.journal = Journal(terminal.journal)
        self.options = LoadOptions(model_path=str(tiny_model), max_failures=max_failures)
        request = LoadRequest(
            kind="default",
            names=tuple(str(terminal.folder / name) for name in names),
            chroma=str(terminal.folder / "chroma"),
            collection="default",
            model=DEFAULT_MODEL,
            options=self.options,
        )
        opened = open_task(
            self.journal, request, stdin=io.BytesIO(), if_running="refuse", wait_until=0.0, context=RunContext()
        )
        assert opened.task is not None
        assert opened.claim is not None
        self.task: Task = self.journal.change(opened.task.id, TaskStatus.PROCESSING, expect=(TaskStatus.PENDING,))
        self.claim: Claim = opened.claim
        self.resources = Resources(self.task, leases=self.claim.leases)

    @contextmanager
    def runner(self) -> Iterator[UnitRunner]:
        runner = UnitRunner(Spec(task=self.task, origin=self.resources.origin))
        try:
            yield runner
        finally:
            runner.close()

    def run(self, workers: StandIns) -> Committer:
        committer = Committer(self.claim, self.task, RunContext())
        sources = self.resources.sources
        scheduler = Scheduler(workers, count=3, sources=sources, wait=lambda: None)
        with Receipts.open_at(self.claim.files.receipts) as receipts:
            receipts.begin(is_empty=not (Path(self.task.chroma) / "chroma.sqlite3").exists())
            load_units(committer, receipts, sources, start_scheduler=lambda: scheduler)
        committer.check_complete()
        return committer


@pytest.fixture(autouse=True)
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_load, "plan_units", lambda sources: plan_units(sources, rows=UNIT))


def _write(terminal: Terminal, rows: int) -> list[dict[str, Any]]:
    """Write two files in which ids come again in other units, with other texts and other keys, among bad rows."""
    items = [
        {"object_id": f"obj-{row % 37:02d}", "payload": {"text": f"text {row}", f"key-{row % 5}": row, "list": [row]}}
        for row in range(rows)
    ]
    items[5] = {"object_id": "", "payload": {"text": "no id"}}
    items[rows - 2] = {"object_id": "obj-01", "payload": {"text": ""}}
    half = rows // 2
    terminal.write("a.jsonl", items[:half])
    terminal.write("b.jsonl", items[half:])
    return items


def test_units_end_like_the_local_load(terminal: Terminal, tiny_model: Path) -> None:
    """Last units first, deaths and a stop after a unit was written: collection and counts are those of a load in order."""
    _write(terminal, 120)
    load = _Load(terminal, tiny_model, "a.jsonl", "b.jsonl")
    deaths = iter([True])
    stops = iter([False, False, True])
    with load.runner() as runner:

        def run(unit: Unit) -> Receipt:
            receipt = runner.run(unit)
            if next(stops, False):
                raise KeyboardInterrupt
            return receipt

        def dies(unit: Unit) -> bool:
            return next(deaths, False) and runner.run(unit).error is None

        with pytest.raises(KeyboardInterrupt):
            load.run(StandIns(run, dies=dies))
        first = load.journal.find(load.task.id)
        assert first.counts.reconciles()
        assert first.counts.read == UNIT + 12  # two units have a receipt, one of them the last of its file
        again = StandIns(runner.run)
        committer = load.run(again)
        assert len([unit for unit in again.runs if unit.only is None]) == 8 - 2
        assert [unit for unit in again.runs if unit.only is not None]
    counts = committer.checkpoint.counts
    assert (counts.read, counts.failed) == (120, 2)
    assert (counts.inserted, counts.updated + counts.unchanged + counts.duplicate) == (37, 120 - 2 - 37)
    assert committer.checkpoint.converted.by_field.keys() == {"list"}
    assert committer.checkpoint.converted.values >= first.converted.values > 0
    rejects = list(load.journal.rejects(load.task.id))
    assert [(Path(record["source"]).name, record["row"]) for record in rejects] == [("a.jsonl", 6), ("b.jsonl", 59)]
    load.claim.finish(TaskStatus.DONE, detail=None, failed_items=(), checkpoint=committer.checkpoint)
    assert not list((terminal.journal / "active").glob("*.units*"))
    load.claim.release()
    records = terminal.records(vectors=True)
    terminal.env["UPSERT_CLI_RUN_MODEL_PATH"] = str(tiny_model)
    (terminal.folder / "chroma").rename(terminal.folder / "by-units")
    terminal.type("upsert-cli run a.jsonl b.jsonl", expect=3)
    assert records == terminal.records(vectors=True)


def test_too_many_rejects_end_the_load(terminal: Terminal, tiny_model: Path) -> None:
    """With `--max-failures`, no further unit is given out once too many rows are rejected; finished units are kept."""
    terminal.write("a.jsonl", [{"object_id": f"obj-{row}", "payload": {"text": " "}} for row in range(100)])
    load = _Load(terminal, tiny_model, "a.jsonl", max_failures="10")
    with load.runner() as runner:
        workers = StandIns(runner.run)
        with pytest.raises(UpsertCliError, match=f"{UNIT} of {UNIT} items were rejected"):
            load.run(workers)
    assert len(workers.runs) == 1
    assert load.journal.find(load.task.id).counts.failed == UNIT
    load.claim.release()


def test_the_rows_before_a_break_have_receipts(terminal: Terminal, tiny_model: Path) -> None:
    """A source that breaks off fails the load after the rows before it, and the units that other workers have."""
    names = [f"obj-{row:03}" for row in range(90)]
    items = [{"object_id": name, "payload": {"text": name}} for name in names]
    terminal.write("a.jsonl", items[:40])
    lines = "".join(json.dumps(item) + "\n" for item in items[40:60])
    (terminal.folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode())[:-8])
    terminal.write("c.jsonl", items[60:])
    load = _Load(terminal, tiny_model, "a.jsonl", "b.jsonl.gz", "c.jsonl")
    for _ in range(2):
        with load.runner() as runner, pytest.raises(SourceUnreadable, match="beyond row 20"):
            load.run(StandIns(runner.run))
        checkpoint = load.claim.checkpoint()
        assert checkpoint is not None
        assert checkpoint.counts.reconciles()
        records = terminal.records().keys()
        assert set(names[:60]) <= records
        assert checkpoint.counts.inserted == len(records)
    load.claim.release()
