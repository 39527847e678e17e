"""`--dry-run` reports what the load then does, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.items import Items
from tests.support.terminal import Terminal


def _summary(terminal: Terminal, line: str, *, expect: int) -> dict[str, Any]:
    events = [json.loads(text) for text in terminal.type(f"{line} --json", expect=expect).stdout.splitlines()]
    summary: dict[str, Any] = events[-1]
    assert summary["type"] == "summary"
    return summary


def test_a_dry_run_reports_the_load(tiny: Terminal, make_items: Items) -> None:
    """New, changed, unchanged, repeated and rejected rows are those of the load, and so is the exit code."""
    items = make_items(60)
    tiny.write("a.jsonl", items[:50])
    tiny.type("upsert-cli run a.jsonl")
    before = tiny.records(vectors=True)
    items[3]["payload"]["text"] = "another text"
    items[4]["payload"]["number"] = 400
    tiny.write("a.jsonl", [*items, items[7], {"object_id": "bad", "payload": {"text": ""}}])
    told = _summary(tiny, "upsert-cli run a.jsonl --dry-run", expect=3)
    assert tiny.records(vectors=True) == before
    assert len(json.loads(tiny.type("upsert-cli list --json").stdout)) == 1
    done = _summary(tiny, "upsert-cli run a.jsonl", expect=3)
    assert told["counts"] == done["counts"]
    assert (told["counts"]["inserted"], told["counts"]["updated"], told["counts"]["duplicate"]) == (10, 2, 1)
    assert told["dry_run"] is True
    assert told["tokens"] > 0
    assert _summary(tiny, "upsert-cli run a.jsonl --dry-run --strict", expect=1)["counts"]["unchanged"] == 60


def test_a_dry_run_makes_no_folder_and_no_task(tiny: Terminal, make_items: Items) -> None:
    """Without a collection everything is new, and no collection exists afterwards."""
    tiny.write("a.jsonl", make_items(5))
    said = tiny.type("upsert-cli run a.jsonl --dry-run").stderr
    assert "dry run: 5 inserted, 0 updated, 0 unchanged, 0 rejected" in said
    assert not (tiny.folder / "chroma").exists()
    assert tiny.type("upsert-cli list --json").stdout.strip() == "[]"
    assert tiny.type("upsert-cli run a.jsonl --dry-run -q").stderr == ""


def test_a_dry_run_is_refused_as_the_load_would_be(tiny: Terminal, make_items: Items, other_model: str) -> None:
    """Another model than the collection's is exit 4 already in the rehearsal."""
    tiny.write("a.jsonl", make_items(5))
    tiny.type("upsert-cli run a.jsonl")
    tiny.type(f"upsert-cli run a.jsonl --dry-run {other_model}", expect=4)


def test_without_a_comparison_no_model_is_needed(terminal: Terminal, make_items: Items, tmp_path: Path) -> None:
    """`--no-compare` checks only the rows; for a real load it is a usage error."""
    terminal.env["UPSERT_CLI_MODEL_CACHE"] = str(tmp_path / "none")
    terminal.write("a.jsonl", [*make_items(5), {"object_id": "bad", "payload": {}}])
    said = terminal.type("upsert-cli run a.jsonl --dry-run --no-compare --offline", expect=3).stderr
    assert "compared with nothing: 5 inserted" in said
    assert "a.jsonl:6: on_reading: payload.text is missing" in said
    assert "--dry-run" in terminal.type("upsert-cli run a.jsonl --no-compare", expect=2).stderr
