"""--split: items as chunks, after any earlier load and any interruption."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from tests.support.other_program import plain_chroma
from tests.support.records import Records
from tests.support.terminal import Terminal

SENTENCES = [f"Sentence {number} tells of matter number {number * 7}. " for number in range(400)]
LINE = "upsert-cli run a.jsonl --split --max-tokens 32 --average --batch-size 16 --task-id t"
FEW_KILLS, MANY_KILLS = 4, 100


def _item(object_id: str, sentences: Iterable[int], **payload: Any) -> dict[str, Any]:
    text = "".join(SENTENCES[number] for number in sentences)
    return {"object_id": object_id, "payload": {"text": text, "kind": "k"} | payload}


def _of(records: Records, object_id: str) -> list[str]:
    """Return the texts of an item's chunks in order, and check that no further chunk exists."""
    parts = {
        record["metadata"]["part"]: record["document"]
        for record in records.values()
        if record["metadata"].get("object_id") == object_id and record["metadata"]["part"] != "average"
    }
    assert sorted(parts) == list(range(len(parts)))
    return [parts[number] for number in range(len(parts))]


def _check(terminal: Terminal, items: list[dict[str, Any]], *, average: bool = True) -> Records:
    """Check that a collection holds the chunks of these items, and nothing else."""
    records = terminal.records(vectors=True)
    expected: set[str] = set()
    for item in {item["object_id"]: item for item in items}.values():
        object_id = item["object_id"]
        parts = _of(records, object_id)
        assert "".join(parts) == item["payload"]["text"]
        ids = [f"{object_id}#{number}" for number in range(len(parts))]
        expected |= {*ids, *([f"{object_id}#average"] if average else [])}
        if average:
            mean = np.mean([records[one]["vector"] for one in ids], axis=0)
            own = records[f"{object_id}#average"]["vector"]
            assert own == pytest.approx(mean / np.linalg.norm(mean), abs=1e-4)
    assert records.keys() == expected
    return records


def test_an_edit_rewrites_what_changed_and_leaves_no_stale_chunk(tiny: Terminal) -> None:
    """Counts are of items; an unchanged one costs nothing, a shorter one loses its tail, and verify agrees."""
    first = [_item("long", range(60)), _item("short", [1]), _item("short#0", [2]), _item("grows", range(3))]
    tiny.write("a.jsonl", first)
    tiny.type(f"{LINE} --verify")
    counts = tiny.info("t")["counts"]
    assert (counts["read"], counts["inserted"], counts["truncated"]) == (4, 4, 0)
    before = _check(tiny, first)
    assert len(_of(before, "long")) > 16
    again = json.loads(
        tiny.type("upsert-cli run a.jsonl --split --max-tokens 32 --average --json").stdout.splitlines()[-1]
    )
    assert again["counts"]["unchanged"] == 4

    edited = [_item("long", range(30)), _item("short", [1]), _item("short#0", [2]), _item("grows", range(9))]
    tiny.write("a.jsonl", edited)
    line = "upsert-cli run a.jsonl --split --max-tokens 32 --average"
    dry_run_finished = tiny.type(f"{line} --dry-run").stderr
    assert "0 inserted, 2 updated, 2 unchanged" in dry_run_finished
    assert _check(tiny, first).keys() == before.keys()
    assert "0 inserted, 2 updated, 2 unchanged" in tiny.type(f"{line} --verify --batch-size 16").stderr
    _check(tiny, edited)
    assert "0 inserted, 4 updated" in tiny.type(line.replace(" --average", "")).stderr
    _check(tiny, edited, average=False)


def test_with_and_without_split_in_turn(tiny: Terminal) -> None:
    """An item replaces all of its records, parts or whole; the records of other items stay."""
    items = [_item("a", range(9)), _item("a#1", [3]), _item("b", [1])]
    items[2]["payload"] |= {"part": 0, "object_id": "x"}
    tiny.write("a.jsonl", items)
    other = _item("other", range(9))
    tiny.write("other.jsonl", [other])
    tiny.type("upsert-cli run other.jsonl --split --max-tokens 32")
    split = "upsert-cli run a.jsonl --split --max-tokens 32"
    assert "3 inserted, 0 updated" in tiny.type(split).stderr
    done = tiny.type("upsert-cli run a.jsonl --verify", expect=3).stderr
    assert "0 inserted, 2 updated, 0 unchanged, 1 rejected" in done
    assert "on_upsert: the record a#1 in the collection is a chunk of another item" in done
    # The whole item has replaced that chunk, so its id is free.
    assert "0 inserted, 1 updated, 2 unchanged, 0 rejected" in tiny.type("upsert-cli run a.jsonl --verify").stderr
    records = tiny.records()
    others = {f"other#{number}" for number in range(len(_of(records, "other")))}
    assert records.keys() == {"a", "a#1", "b"} | others
    refused = tiny.type(split, expect=3).stderr
    assert "0 inserted, 2 updated, 0 unchanged, 1 rejected" in refused
    assert "on_splitting: the record a#1 in the collection is another item" in refused
    assert "0 inserted, 1 updated, 2 unchanged, 0 rejected" in tiny.type(f"{split} --verify").stderr
    _check(tiny, [*items, other], average=False)


def test_long_items_and_repeated_ids(tiny: Terminal) -> None:
    """Of a many-batch item and short ones with its id around it, the last wins, and nothing is left over."""
    items = [
        _item("x", range(200)),
        _item("y", [5]),
        _item("x", [6]),
        _item("z", range(90)),
        _item("z", range(70, 250)),
    ]
    tiny.write("a.jsonl", items)
    tiny.type(f"{LINE} --verify")
    counts = tiny.info("t")["counts"]
    assert counts["read"] == 5 == counts["inserted"] + counts["updated"] + counts["duplicate"]
    assert tiny.info("t")["progress"] == {"rows": 5, "total": 5}
    _check(tiny, items)


def test_verify_finds_and_repairs_chunks(tiny: Terminal) -> None:
    """Parts that are gone, changed or too many are found; all is well again after --repair, the means too."""
    items = [_item("x", range(50)), _item("y", range(5))]
    tiny.write("a.jsonl", items)
    tiny.type(LINE)
    code = (
        "c = client.get_collection('default'); "
        "m = c.get(ids=['x#3'])['metadatas'][0]; "
        "c.delete(ids=['x#1', 'x#average', 'y#average']); c.update(ids=['y#0'], documents=['other'], embeddings=[[0.5] * 384]); "
        "c.add(ids=['y#7'], documents=['stale'], embeddings=[[0.5] * 384], "
        "metadatas=[m | {'object_id': 'y', 'part': 7}])"
    )
    plain_chroma(tiny, code)
    found = json.loads(tiny.type("upsert-cli verify t --json", expect=3).stdout)
    assert (found["missing"]["count"], found["stale"]["count"]) == (3, 1)
    tiny.type("upsert-cli verify t --repair")
    _check(tiny, items)


def test_rejects_of_split_items(tiny: Terminal) -> None:
    """A chunk that cannot be stored rejects its item once, with its row; once fixed, --failed-only loads it."""
    bad = _item("bad", range(9), keys={f"key {number}": "x" * 50 for number in range(2_000)})
    tiny.write("a.jsonl", [_item("a", range(9)), bad, {"object_id": "empty", "payload": {"text": ""}}])
    tiny.type(LINE, expect=3)
    rejects = [json.loads(line) for line in tiny.type("upsert-cli info t --failed").stdout.splitlines()]
    assert [(one["object_id"], one["row"]) for one in rejects] == [("bad", 2), ("empty", 3)]
    tiny.type("upsert-cli restart t --failed-only", expect=3)
    counts = tiny.info("t")["counts"]
    assert (counts["read"], counts["inserted"], counts["failed"]) == (3, 1, 2)


def test_options_that_do_not_fit(tiny: Terminal) -> None:
    """Such options are refused before anything is created, and so is another splitting under the same task id."""
    tiny.write("a.jsonl", [_item("a", range(9))])
    assert "go with --split" in tiny.type("upsert-cli run a.jsonl --max-tokens 20", expect=2).stderr
    assert "less than" in tiny.type("upsert-cli run a.jsonl --split --max-tokens 20 --overlap 20", expect=2).stderr
    assert "at most 256" in tiny.type("upsert-cli run a.jsonl --split --max-tokens 300", expect=4).stderr
    assert not (tiny.folder / "chroma").exists()
    tiny.type(LINE)
    for other in (LINE.replace("32", "40"), f"{LINE} --overlap 4"):
        assert "stands for another load" in tiny.type(other, expect=4).stderr
    assert "stands for another load" in tiny.type("upsert-cli run a.jsonl --task-id t", expect=4).stderr


def test_truncated_texts_are_reported_once_with_the_option(tiny: Terminal) -> None:
    """Without --split, a text beyond the model's limit is counted, and the option is named."""
    tiny.write("a.jsonl", [_item("a", range(90)), _item("b", range(90, 180)), _item("c", [1])])
    done = tiny.type("upsert-cli run a.jsonl --task-id t").stderr
    assert tiny.info("t")["counts"]["truncated"] == 2
    assert done.count("--split") == 1
    assert "--split" not in tiny.type("upsert-cli run a.jsonl --split").stderr


@pytest.mark.parametrize("kills", [FEW_KILLS, pytest.param(MANY_KILLS, marks=pytest.mark.slow)])
def test_kills_at_random_instants(tiny: Terminal, kills: int) -> None:
    """Killed with -9 while old parts give way to new ones: no item is ever without its first part, and the end is equal."""
    choose = random.Random(kills)
    old = [_item(f"i{number}", range(number, number + 40)) for number in range(12)] + [_item("big", range(250))]
    new = [_item(f"i{number}", range(number + 3, number + 3 + 4 * number)) for number in range(12)]
    new = [*(item if item["payload"]["text"] else _item("i0", [9]) for item in new), _item("big", range(5, 130))]
    done = 0
    while done < kills:
        terminal = Terminal(tiny.folder / str(done), tiny.env)
        terminal.folder.mkdir()
        terminal.write("a.jsonl", old)
        terminal.type("upsert-cli run a.jsonl --split --max-tokens 32 --average")
        terminal.write("a.jsonl", new)
        line = LINE
        for _ in range(4):
            process = terminal.start(line)
            try:
                process.wait(choose.uniform(1.0, 8.0))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate(timeout=120)
            done += 1
            if process.returncode == 0:
                break
            if terminal.type("upsert-cli info t --json", expect=None).returncode == 0:
                line = "upsert-cli restart t"
        if process.returncode != 0:
            assert {f"{item['object_id']}#0" for item in new} <= terminal.records().keys()
            terminal.type(line)
        assert terminal.info("t")["counts"]["read"] == len(new)
        _check(terminal, new)
