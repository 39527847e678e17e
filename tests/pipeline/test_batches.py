"""Batches: every row in exactly one, bounded, repeated ids reduced to the last."""

from __future__ import annotations

import json
import tempfile
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from tests.support.reading import fuzz, sources_of
from upsert_cli.documents.recipe import Recipe
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.batches import (
    LIGHT_ROWS,
    LIGHT_SECONDS,
    MAX_ROWS,
    MAX_SIZE,
    MIN_ROWS,
    TARGET_SECONDS,
    Pace,
    read_batches,
)
from upsert_cli.sources.item import START, Position
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source

RECIPE = Recipe(identity="test")


def _batches(sources: list[Source], rows: int, start: Position = START) -> list[Batch]:
    return list(read_batches(Rows(sources=sources, start=start), recipe=RECIPE, pace=Pace(rows)))


def _write(path: Path, ids: list[str]) -> Path:
    lines = [
        json.dumps({"object_id": identifier, "payload": {"text": f"{identifier} {row}"}}) if identifier else "broken"
        for row, identifier in enumerate(ids)
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@fuzz(ids=st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=40), rows=st.integers(1, 10))
def test_every_row_is_in_one_batch_and_accounted_for(ids: list[str], rows: int) -> None:
    """Documents, rejects and duplicates of all batches are the rows of the file; the last of an id stays."""
    with tempfile.TemporaryDirectory() as folder:
        batches = _batches(sources_of(_write(Path(folder) / "a.jsonl", ids)), rows)
    assert sum(batch.read for batch in batches) == len(ids)
    assert all(batch.read == rows for batch in batches[:-1])
    for number, batch in enumerate(batches):
        part = ids[number * rows : number * rows + rows]
        assert batch.read == len(batch.documents) + len(batch.rejects) + batch.duplicate
        assert {document.id for document in batch.documents} == set(part) - {""}
        assert len(batch.rejects) == part.count("")
        for document in batch.documents:
            last = max(row for row, identifier in enumerate(ids[: number * rows + rows]) if identifier == document.id)
            assert document.text == f"{document.id} {last}"


def test_a_batch_spans_files_and_can_be_resumed_after(tmp_path: Path) -> None:
    """Many small files make few batches, and reading on after any of them gives just the rest."""
    paths = [_write(tmp_path / f"{number}.jsonl", [f"{number}-{row}" for row in range(3)]) for number in range(5)]
    sources = sources_of(*paths)
    batches = _batches(sources, 4)
    assert [batch.read for batch in batches] == [4, 4, 4, 3]
    for number, batch in enumerate(batches):
        rest = _batches(sources, 4, start=batch.after)
        assert [w.documents for w in rest] == [w.documents for w in batches[number + 1 :]]


def test_a_batch_is_bounded_in_bytes(tmp_path: Path) -> None:
    """Long rows make short batches, rejected rows included."""
    path = tmp_path / "a.jsonl"
    good = json.dumps({"object_id": "a", "payload": {"text": "x" * 3_000_000}})
    bad = json.dumps({"object_id": "", "payload": {"text": "x" * 3_000_000}})
    path.write_text("".join(f"{line}\n" for line in [good, bad] * 6))
    assert all(batch.read <= 3 for batch in _batches(sources_of(path), 512))


def test_the_pace_follows_the_measured_speed() -> None:
    """Batches grow when they are fast, most of all without changes, shrink when slow, and obey the user."""
    pace = Pace()
    assert pace.rows == MIN_ROWS
    for _ in range(10):
        pace.learn("embedding", pace.rows, pace.rows * LIGHT_SECONDS)
    assert pace.rows == MAX_ROWS
    for _ in range(10):
        pace.learn("embedding", pace.rows, 0.0)
    assert pace.rows == LIGHT_ROWS
    pace.learn("embedding", MAX_ROWS, 2 * TARGET_SECONDS)
    pace.learn("writing", MAX_ROWS, 0.001)
    assert pace.rows == MAX_ROWS // 2
    pace.learn("writing", pace.rows, 1000.0)
    assert pace.rows == MIN_ROWS
    fixed = Pace(7)
    fixed.learn("embedding", 7, 0.001)
    assert fixed.rows == 7


def test_a_pace_that_is_not_known_is_waited_for_until_the_end() -> None:
    """Waiting ends once a batch was measured, when the stream ends, and at once if the user chose a size."""
    ending = threading.Event()
    ending.set()
    Pace().await_first(ending)
    Pace(7).await_first(threading.Event())
    pace = Pace()
    threading.Timer(0.1, pace.learn, ("embedding", 64, 1.0)).start()
    pace.await_first(threading.Event())
    assert pace.rows == 3 * MIN_ROWS


@pytest.mark.parametrize("field", ["text", "other", "nested"])
def test_a_batch_is_bounded_in_size_by_any_field(tmp_path: Path, field: str) -> None:
    """Large texts, large metadata and large rejects end a batch early, so that memory does not grow with them."""
    large = "x" * (MAX_SIZE // 4)
    payloads = {"text": {"text": large}, "other": {"text": "t", "note": large}, "nested": {"text": "", "a": [large]}}
    path = tmp_path / "a.parquet"
    rows = [{"object_id": f"{row}", "payload": json.dumps(payloads[field])} for row in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), path)
    batches = _batches(sources_of(path), 512)
    assert sum(batch.read for batch in batches) == 12
    assert max(batch.read for batch in batches) <= 4


def test_a_batch_of_which_nothing_is_left_lets_the_reader_go_on() -> None:
    """The comparison may empty the first batch; even then, waiting for its speed ends."""
    pace = Pace()
    pace.learn("embedding", 0, 0.0)
    assert pace.rows == MIN_ROWS
    ending = threading.Event()
    late = threading.Timer(10, ending.set)
    late.start()
    pace.await_first(ending)
    late.cancel()
    assert not ending.is_set()
