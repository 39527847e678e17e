"""The same id in several rows: the last good one wins, wherever the batches end and however the later ones fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.terminal import Terminal
from tests.support.tiny_model import choking_model
from upsert_cli.counts import Counts
from upsert_cli.documents.document import make_document
from upsert_cli.documents.recipe import Recipe
from upsert_cli.journal.receipts import Loaded
from upsert_cli.pipeline.batch import Batch, Outcomes
from upsert_cli.sources.item import START, Item
from upsert_cli.store.base import Comparison, Verdict

BAD = "horse"  # the word for which the model of these tests returns NaN

# Each id with the texts of its rows; the collection ends with the last good one.
TEXTS = {
    "good": ["one", "two", "three"],
    "late": ["one", "two", f"a {BAD}"],
    "twice": ["one", "two", f"a {BAD}", f"another {BAD}"],
    "never": [f"a {BAD}", f"another {BAD}"],
    "first": ["one", f"a {BAD}", f"another {BAD}"],
    "mended": [f"a {BAD}", "two"],
    "alone": ["one"],
    "unreadable": ["one", ""],
}
EXPECTED = {"good": "three", "late": "two", "twice": "two", "first": "one", "mended": "two", "alone": "one"}
EXPECTED |= {"unreadable": "one"}


@pytest.fixture
def repeating(tiny: Terminal, tiny_model: Path) -> Terminal:
    """Return a terminal with a file in which ids come again, and with a model that chokes on some of their texts."""
    rows = [
        {"object_id": one, "payload": {"text": texts[turn], "turn": turn}}
        for turn in range(4)
        for one, texts in TEXTS.items()
        if turn < len(texts)
    ]
    tiny.write("a.jsonl", rows)
    folder = choking_model(tiny_model, tiny.folder / "model", BAD)
    tiny.env["UPSERT_CLI_RUN_MODEL_PATH"] = str(folder)
    return tiny


def _reconciled(counts: dict[str, int]) -> None:
    assert counts["read"] == sum(map(len, TEXTS.values()))
    parts = ("inserted", "updated", "unchanged", "duplicate", "failed")
    assert counts["read"] == sum(counts[part] for part in parts)


def _texts(terminal: Terminal, suffix: str = "") -> dict[str, str]:
    records = terminal.records()
    return {one.removesuffix(suffix): record["document"] for one, record in records.items()}


@pytest.mark.parametrize("size", [64, 1])
def test_the_last_good_row_wins_whatever_the_batch_size(repeating: Terminal, size: int) -> None:
    """All rows in one batch or each in its own: the same collection, the bad rows that were tried are rejects."""
    repeating.type(f"upsert-cli run a.jsonl --task-id t --batch-size {size}", expect=3)
    assert _texts(repeating) == EXPECTED
    task = repeating.info("t")
    _reconciled(task["counts"])
    rejects = [json.loads(line) for line in repeating.type("upsert-cli info t --failed").stdout.splitlines()]
    assert [reject["row"] for reject in rejects] == sorted(reject["row"] for reject in rejects)
    failed = {(reject["object_id"], reject["payload"]["turn"]) for reject in rejects}
    later = {("late", 2), ("twice", 2), ("twice", 3), ("never", 0), ("never", 1), ("first", 1), ("first", 2)}
    assert later | {("unreadable", 1)} <= failed <= later | {("unreadable", 1), ("mended", 0)}
    if size == 64:
        assert task["counts"] | {"truncated": 0} == {
            "read": 20, "inserted": 7, "updated": 0, "unchanged": 0, "duplicate": 5, "failed": 8, "deleted": 0,
            "truncated": 0,
        }  # fmt: skip
    verified = json.loads(repeating.type("upsert-cli verify t --json").stdout)
    assert (verified["ok"], verified["records"]) == (True, len(EXPECTED))


def test_rows_that_end_their_worker_are_not_expected(repeating: Terminal) -> None:
    """Such a row is a reject of the stage `other`: verify expects the row before it, and offers no repair."""
    repeating.type("upsert-cli run a.jsonl --task-id t", expect=3)
    path = next((repeating.journal / "rejects").glob("t.jsonl"))
    path.write_text(path.read_text().replace("on_inference", "other"))
    assert json.loads(repeating.type("upsert-cli verify t --json").stdout)["ok"]


def test_loading_again_changes_nothing(repeating: Terminal) -> None:
    """The row that replaced a bad one is unchanged and not embedded again; a retry of the bad rows leaves it alone."""
    repeating.type("upsert-cli run a.jsonl --task-id t", expect=3)
    before = repeating.records(vectors=True)
    repeating.type("upsert-cli run a.jsonl --task-id again", expect=3)
    counts = repeating.info("again")["counts"]
    _reconciled(counts)
    assert (counts["inserted"], counts["updated"], counts["unchanged"]) == (0, 0, len(EXPECTED))
    repeating.type("upsert-cli restart t --failed-only", expect=3)
    _reconciled(repeating.info("t")["counts"])
    assert repeating.records(vectors=True) == before


def test_an_item_whose_row_before_takes_its_place_is_new() -> None:
    """Parts of the refused row may be there by then, so the row before is compared with them and looks changed."""
    verdicts = {"a": Verdict.TEXT, "b": Verdict.UNCHANGED, "c": Verdict.NEW, "d": Verdict.TEXT}
    items = [Item(one, {"text": one}, None, "a.jsonl", row) for row, one in enumerate(verdicts, 1)]
    fallback = Batch(
        number=0,
        documents=tuple(make_document(item, Recipe(identity="test")) for item in items),
        read=0,
        after=START,
        comparison=Comparison(verdicts=[*verdicts.values()]),
    )
    outcome = Outcomes().of(fallback, new={"a", "b", "c", "x"})
    assert outcome.counts == Counts(inserted=3, updated=1)
    new = {one: Loaded(row, inserted=True, unchanged=False) for one, row in (("a", 1), ("b", 2), ("c", 3))}
    assert dict(outcome.loaded) == new | {"d": Loaded(4, inserted=False, unchanged=False)}


def test_split_items_replace_each_other_as_a_whole(repeating: Terminal) -> None:
    """With --split, no chunk of the bad row remains next to the chunks of its replacement."""
    rows: list[dict[str, Any]] = [
        {"object_id": "a", "payload": {"text": "short and good"}},
        {"object_id": "a", "payload": {"text": "a good part of many words. " * 20 + f"\n\nand then a {BAD}"}},
    ]
    repeating.write("long.jsonl", rows)
    split = "--split --max-tokens 16 --average"
    repeating.type(f"upsert-cli run long.jsonl --task-id t {split} --collection parts", expect=3)
    records = repeating.records("parts")
    assert set(records) == {"a#0", "a#average"}
    assert records["a#0"]["document"] == "short and good"
    counts = repeating.info("t")["counts"]
    assert (counts["read"], counts["inserted"], counts["failed"], counts["duplicate"]) == (2, 1, 1, 0)
    assert json.loads(repeating.type("upsert-cli verify t --json").stdout)["ok"]


def test_a_dry_run_chooses_the_rows_that_the_load_does(repeating: Terminal) -> None:
    """Where the id of all rows is taken by another item, each row is a reject, in --dry-run and in the load."""
    repeating.write("parts.jsonl", [{"object_id": "a", "payload": {"text": "good " * 40}}])
    repeating.type("upsert-cli run parts.jsonl --split --max-tokens 16")
    repeating.write("b.jsonl", [{"object_id": "a#1", "payload": {"text": text}} for text in ("one", "two")])
    told = json.loads(repeating.type("upsert-cli run b.jsonl --dry-run --json", expect=3).stdout.splitlines()[-1])
    assert (told["counts"]["read"], told["counts"]["failed"]) == (2, 2)
    repeating.type("upsert-cli run b.jsonl --task-id b", expect=3)
    counts = repeating.info("b")["counts"]
    assert (counts["read"], counts["failed"], counts["duplicate"]) == (2, 2, 0)
