"""A worker never raises: its receipt says why a unit could not be loaded."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import platform
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.support.journal_tasks import make_task
from tests.support.reading import sources_of
from tests.support.tiny_model import choking_model
from upsert_cli import __version__
from upsert_cli.cluster import worker
from upsert_cli.cluster.worker import Spec, UnitRunner
from upsert_cli.counts import Counts
from upsert_cli.embedding.catalog import DEFAULT_MODEL, NO_MODEL, Prefixes
from upsert_cli.embedding.identity import ModelIdentity, OwnVectors
from upsert_cli.errors import Refusal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.receipts import Loaded, Receipt
from upsert_cli.sources.rows import Unit, plan_units
from upsert_cli.sources.source import Source

MARKER = "marker-of-a-secret"


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    """Return a file with one good row and two bad ones."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"object_id": "a", "payload": {"text": "hello"}}\n{"object_id": 3}\nno json\n')
    return sources_of(path)


def _spec(tmp_path: Path, sources: list[Source], tiny_model: Path, *, prefix: str = "", secret: str = "") -> Spec:
    task = make_task(
        chroma=str(tmp_path / "chroma"),
        inputs=tuple(source.as_json() for source in sources),
        options=LoadOptions(model_path=str(tiny_model), passage_prefix=prefix),
    )
    return Spec(
        task=task,
        origin=ModelIdentity(name=DEFAULT_MODEL, dimension=384, max_tokens=256, prefixes=Prefixes(prefix)),
        secrets=(secret,) if secret else (),
    )


def _only(sources: list[Source]) -> Unit:
    [unit] = plan_units(sources)
    return unit


def test_a_receipt_accounts_for_each_row(tmp_path: Path, sources: list[Source], tiny_model: Path) -> None:
    """Counts, rejects and ids of a unit come back in a receipt that survives the way through any pipe."""
    runner = UnitRunner(_spec(tmp_path, sources, tiny_model))
    done: Receipt = pickle.loads(pickle.dumps(runner.run(_only(sources))))  # noqa: S301
    runner.close()
    assert done.error is None
    assert (done.counts.read, done.counts.inserted, done.counts.failed) == (3, 1, 2)
    assert [record["row"] for record in done.rejects] == [2, 3]
    assert [one for _, one in done.ids] == [Loaded(1, inserted=True, unchanged=False)]
    assert done.seconds["embedding"] > 0


def test_a_long_unit_counts_all_that_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a unit without a known end is split, no row that it wrote is left to the rest, as an unchanged one."""
    monkeypatch.setattr(worker, "OPEN_UNIT_ROWS", 100)
    path, rows = tmp_path / "a.jsonl.gz", 1_000
    items = ({"object_id": f"i{row}", "payload": {"text": "t", "vector": [1.0, row]}} for row in range(rows))
    path.write_bytes(gzip.compress("".join(f"{json.dumps(item)}\n" for item in items).encode()))
    sources = sources_of(path)
    inputs = tuple(source.as_json() for source in sources)
    task = make_task(chroma=str(tmp_path / "chroma"), model=NO_MODEL, inputs=inputs, options=LoadOptions(batch_size=20))
    runner = UnitRunner(Spec(task=task, origin=OwnVectors(dimension=2)))
    unit: Unit | None = _only(sources)
    receipts = []
    while unit is not None:
        receipts.append(runner.run(unit))
        unit = receipts[-1].rest
    runner.close()
    assert len(receipts) > 1
    assert [done.error for done in receipts] == [None] * len(receipts)
    assert sum((done.counts for done in receipts), Counts()) == Counts(read=rows, inserted=rows)


def test_folders_of_killed_workers_are_removed(
    tmp_path: Path, sources: list[Source], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker removes the folders that killed ones left more than a day ago, and no other one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    running = UnitRunner(_spec(tmp_path, sources, tiny_model))
    left = tmp_path / f"{worker.FOLDER_PREFIX}left"
    left.mkdir()
    (left / "a.lease").touch()
    folders = [*tmp_path.glob(f"{worker.FOLDER_PREFIX}*")]
    for path in (left / "a.lease", *folders):
        os.utime(path, (0, 0))
    later = UnitRunner(_spec(tmp_path, sources, tiny_model))
    assert not left.exists()
    assert len([*tmp_path.glob(f"{worker.FOLDER_PREFIX}*")]) == len(folders)
    del running, later


def test_a_row_takes_the_place_of_a_later_one_that_fails(tmp_path: Path, tiny_model: Path) -> None:
    """For each id, a unit's receipt names the row that was loaded, not a later row that failed."""
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(f'{{"object_id": "a", "payload": {{"text": "{text}"}}}}\n' for text in ("one", "two", "horse"))
    )
    sources = sources_of(path)
    runner = UnitRunner(_spec(tmp_path, sources, choking_model(tiny_model, tmp_path / "model", "horse")))
    done = runner.run(_only(sources))
    runner.close()
    assert done.counts == Counts(read=3, inserted=1, duplicate=1, failed=1)
    assert [record["row"] for record in done.rejects] == [3]
    assert [one for _, one in done.ids] == [Loaded(2, inserted=True, unchanged=False)]


def test_a_changed_source_is_refused(tmp_path: Path, sources: list[Source], tiny_model: Path) -> None:
    """A file that changed between the plan and the run is not read, even if it was unchanged a moment before."""
    runner = UnitRunner(_spec(tmp_path, sources, tiny_model))
    unit = _only(sources)
    assert runner.run(unit).error is None
    Path(str(sources[0].path)).write_text('{"object_id": "b", "payload": {"text": "other"}}\n')
    assert "changed since the task was last run" in str(runner.run(unit).error)
    runner.close()


def test_errors_do_not_stay(tmp_path: Path, sources: list[Source], tiny_model: Path) -> None:
    """The receipt refuses a collection of another model; the next unit or a ready worker opens it again."""
    runner = UnitRunner(_spec(tmp_path, sources, tiny_model))
    assert runner.run(_only(sources)).error is None
    runner.close()
    other = UnitRunner(_spec(tmp_path, sources, tiny_model, prefix="passage: "))
    for _ in range(2):
        assert isinstance(other.run(_only(sources)).error, Refusal)
    other.prepare()
    (tmp_path / "chroma").rename(tmp_path / "moved")
    assert isinstance(other.run(_only(sources)).error, Refusal)  # which it met before there was a unit
    assert other.run(_only(sources)).error is None
    other.close()


def test_a_machine_without_bf16_is_named(
    tmp_path: Path, sources: list[Source], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker's processor counts, and it is checked before the collection is opened."""
    monkeypatch.setitem(sys.modules, "openvino", None)  # means: not installed
    spec = _spec(tmp_path, sources, tiny_model)
    options = replace(spec.task.options, precision="bf16")
    runner = UnitRunner(replace(spec, task=replace(spec.task, options=options)))
    runner.prepare()
    error = runner.run(_only(sources)).error
    assert isinstance(error, Refusal)
    assert f"not installed on {platform.node()}" in str(error)
    assert not (tmp_path / "chroma").exists()


def test_a_worker_of_another_version_loads_nothing(tmp_path: Path, sources: list[Source], tiny_model: Path) -> None:
    """The receipt names both versions and the machine to install the other one on; no collection is opened."""
    runner = UnitRunner(replace(_spec(tmp_path, sources, tiny_model), version="0.0.0"))
    runner.prepare()
    error = str(runner.run(_only(sources)).error)
    assert f"{platform.node()}:" in error
    assert f"has upsert-cli {__version__}, and the task is run by 0.0.0" in error
    assert not (tmp_path / "chroma").exists()


def test_a_spec_names_secrets_and_holds_none(
    tmp_path: Path, sources: list[Source], tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spec is plain data without the secret; a worker that lacks the variable says so."""
    monkeypatch.setenv("UPSERT_CLI_CHROMA_TOKEN", MARKER)
    spec = _spec(tmp_path, sources, tiny_model, secret="UPSERT_CLI_CHROMA_TOKEN")  # noqa: S106  # its name
    assert MARKER not in json.dumps(asdict(spec))
    assert MARKER.encode() not in pickle.dumps(spec)
    monkeypatch.delenv("UPSERT_CLI_CHROMA_TOKEN")
    error = UnitRunner(spec).run(_only(sources)).error
    assert "is set here, but not for the worker" in str(error)
    assert "set it where Ray is started" in str(error)
