"""`restart --failed-only` reads only the rejected rows again, and their new results replace the old counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

import pytest

from tests.support.items import Items, text_item
from tests.support.terminal import Terminal
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal

ROWS, EVERY = 240, 2


@pytest.fixture
def correctable(tiny: Terminal, make_items: Items) -> Terminal:
    """Return a terminal with a done task of two files; most of their rejected rows, every second one, can be loaded now."""
    items = make_items(ROWS)
    for name, part in (("a.jsonl", items[: ROWS // 2]), ("b.jsonl", items[ROWS // 2 :])):
        for number, item in enumerate(part):
            if number % EVERY == 0:
                item["payload"] |= {"text": "", "body": item["payload"]["text"]}
            if number % 40 == 0:
                item["payload"]["body"] = ""
        tiny.write(name, part)
    tiny.type("upsert-cli run a.jsonl b.jsonl --task-id t --batch-size 16", expect=3)
    _change_task(tiny, "t", text_fields=["body"])
    return tiny


def _change_task(terminal: Terminal, task_id: str, **options: Any) -> None:
    """Make a retry succeed, as another version of the tool or a model that works again would."""
    journal = Journal(terminal.journal)
    with journal.table.changing(task_id) as (file, record):
        file.update(record | {"options": record["options"] | options})
    journal.close()


def _rejects(terminal: Terminal, task_id: str = "t") -> list[tuple[str, int]]:
    output = terminal.type(f"upsert-cli info {task_id} --failed").stdout
    return [(record["source"], record["row"]) for record in map(json.loads, output.splitlines())]


def _failing(identifier: str, text: str) -> dict[str, Any]:
    """Return an item that is rejected first and can be loaded later."""
    return {"object_id": identifier, "payload": {"text": "", "body": text}}


def _snapshot(terminal: Terminal) -> tuple[dict[str, Any], list[tuple[str, int]], dict[str, Any]]:
    return terminal.info("t"), _rejects(terminal), terminal.records()


def _halt_halfway(terminal: Terminal, process: subprocess.Popen[str]) -> None:
    def is_there() -> bool:
        task = terminal.info("t")
        return bool(task["status"] == "processing" and task["counts"]["inserted"] > ROWS - ROWS // EVERY)

    terminal.halt_when(process, "t", is_there)


def _check_end(terminal: Terminal, *, attempts: int) -> None:
    task = terminal.info("t")
    bad = ROWS // 40
    assert (task["status"], task["attempt"]) == ("done", attempts)
    assert task["progress"] == {"rows": ROWS, "total": ROWS}
    # Rows written just before a kill, without a checkpoint, are unchanged for the next attempt.
    counts = task["counts"]
    written = {"inserted": counts["inserted"] + counts["unchanged"], "unchanged": 0}
    assert counts | written == {
        "read": ROWS, "inserted": ROWS - bad, "updated": 0, "unchanged": 0, "duplicate": 0, "failed": bad,
        "deleted": 0, "truncated": 0,
    }  # fmt: skip
    assert _rejects(terminal) == [(name, row) for name in ("a.jsonl", "b.jsonl") for row in range(1, ROWS // 2, 40)]
    assert len(terminal.records()) == ROWS - bad
    assert [path.name for path in (terminal.journal / "rejects").iterdir()] == ["t.jsonl"]


def test_only_the_rejects_are_loaded(correctable: Terminal) -> None:
    """Rejected rows that can now be loaded are inserted, the others stay rejected, and the counts reconcile."""
    assert len(_rejects(correctable)) == ROWS // EVERY
    output = correctable.type("upsert-cli restart t --failed-only --json", expect=3).stdout
    events = [json.loads(line) for line in output.splitlines()]
    assert {event["total"] for event in events if event["type"] == "progress"} <= {ROWS // EVERY}
    assert sum(event["type"] == "reject" for event in events) == ROWS // 40
    _check_end(correctable, attempts=2)
    assert len(correctable.info("t")["failed_items"]) == ROWS // 40
    correctable.type("upsert-cli restart t --failed-only", expect=3)
    _check_end(correctable, attempts=3)


@pytest.mark.parametrize("again", ["restart t", "restart t --failed-only"])
def test_a_killed_retry_is_continued(correctable: Terminal, again: str) -> None:
    """After kill -9, rows that were not retried yet still count as rejected, and either kind of restart completes it."""
    process = correctable.start("upsert-cli restart t --failed-only")
    _halt_halfway(correctable, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    task = correctable.info("t")
    assert (task["status"], task["running"]) == ("processing", False)
    counts = task["counts"]
    assert counts["read"] == counts["inserted"] + counts["failed"] == ROWS
    assert len(_rejects(correctable)) == counts["failed"]
    correctable.type(f"upsert-cli {again}", expect=3)
    _check_end(correctable, attempts=3)


def test_a_crash_before_the_first_checkpoint_of_a_retry(correctable: Terminal) -> None:
    """If the rejects were renamed and nothing else happened, none is lost and the next retry reads them."""
    journal = Journal(correctable.journal)
    before = _rejects(correctable)
    journal.files("t").rejects.rename(journal.files("t").retry)
    assert _rejects(correctable) == before
    correctable.type("upsert-cli restart t --failed-only", expect=3)
    _check_end(correctable, attempts=2)


def test_from_start_discards_a_retry(correctable: Terminal) -> None:
    """`--from-start` reads all rows again, and nothing of an interrupted retry is left."""
    journal = Journal(correctable.journal)
    journal.files("t").rejects.rename(journal.files("t").retry)
    correctable.type("upsert-cli restart t --from-start", expect=3)
    task = correctable.info("t")
    assert (task["counts"]["read"], task["counts"]["failed"]) == (ROWS, ROWS - ROWS // EVERY + ROWS // 40)
    assert not journal.files("t").retry.exists()


def test_a_retry_that_is_not_possible_is_refused(correctable: Terminal, make_items: Items) -> None:
    """A changed source, lost rejects, unread rows and a running task are refused, and nothing is changed."""
    before = _snapshot(correctable)
    path = correctable.folder / "b.jsonl"
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    assert "b.jsonl changed" in correctable.type("upsert-cli restart t --failed-only", expect=4).stderr
    path.write_bytes(content)
    with Claim.take(Journal(correctable.journal), "t"):
        assert "being run" in correctable.type("upsert-cli restart t --failed-only", expect=4).stderr
    assert "choose one" in correctable.type("upsert-cli restart t --failed-only --from-start", expect=2).stderr
    assert _snapshot(correctable) == before
    rejects = Journal(correctable.journal).files("t").rejects
    rejects.write_bytes(rejects.read_bytes().partition(b"\n")[2])
    assert "--from-start" in correctable.type("upsert-cli restart t --failed-only", expect=1).stderr
    correctable.write("c.jsonl", [{"object_id": ""}, *make_items(400)])
    correctable.type("upsert-cli run c.jsonl --task-id c --batch-size 16 --max-failures 0", expect=1)
    assert "not read yet" in correctable.type("upsert-cli restart c --failed-only", expect=4).stderr
    correctable.type("upsert-cli run c.jsonl --task-id empty --model-path .", expect=1)
    assert "not read yet" in correctable.type("upsert-cli restart empty --failed-only", expect=4).stderr


def test_a_task_without_rejects_is_left_alone(tiny: Terminal, make_items: Items) -> None:
    """A task without rejects is not changed, and the exit code is 0."""
    tiny.write("a.jsonl", make_items(3))
    tiny.type("upsert-cli run a.jsonl --task-id t")
    before = tiny.info("t")
    assert "no rejected items" in tiny.type("upsert-cli restart t --failed-only").stderr
    assert tiny.info("t") == before


def test_too_many_rejects_can_be_retried_once_all_is_read(tiny: Terminal, make_items: Items) -> None:
    """A task that failed at its end for too many rejects can retry them, and is done once few enough are left."""
    items = make_items(10)
    for item in items[5:]:
        item["payload"] |= {"text": "", "body": item["payload"]["text"]}
    tiny.write("a.jsonl", items)
    tiny.type("upsert-cli run a.jsonl --task-id t --max-failures 3", expect=1)
    tiny.type("upsert-cli restart t --failed-only", expect=1)
    assert tiny.info("t")["counts"]["failed"] == 5
    _change_task(tiny, "t", text_fields=["body"])
    tiny.type("upsert-cli restart t --failed-only")
    assert tiny.info("t")["status"] == "done"
    assert len(tiny.records()) == 10


def test_a_retried_row_never_replaces_a_later_good_one(tiny: Terminal) -> None:
    """The last row of an id wins, whichever attempt loaded it; an older one counts as a duplicate."""
    tiny.write(
        "a.jsonl", [_failing("x", "x old"), _failing("y", "y old"), text_item("z", "z old"), _failing("x", "x 2")]
    )
    rest = [
        _failing("y", "y new"),
        text_item("x", "x new"),
        _failing("z", "z new"),
        {"object_id": ""},
        _failing("x", ""),
    ]
    tiny.write("b.jsonl", rest)
    tiny.type("upsert-cli run a.jsonl b.jsonl --task-id t --batch-size 3", expect=3)
    assert tiny.info("t")["counts"]["failed"] == 7
    _change_task(tiny, "t", text_fields=["body"])
    for _ in range(2):
        tiny.type("upsert-cli restart t --failed-only", expect=3)
        assert {one: record["document"] for one, record in tiny.records().items()} == {
            "x": "x new", "y": "y new", "z": "z new"
        }  # fmt: skip
        counts = tiny.info("t")["counts"]
        assert (counts["read"], counts["failed"]) == (9, 2)
        written = counts["inserted"] + counts["updated"] + counts["unchanged"]
        assert written + counts["duplicate"] == 7
        assert counts["duplicate"] >= 2


def test_a_killed_retry_still_knows_which_rows_are_superseded(tiny: Terminal, make_items: Items) -> None:
    """If the last row of an id was good at first, no older row is written before or after kill -9."""
    items = make_items(ROWS)
    tiny.write("a.jsonl", [_failing(item["object_id"], "old") for item in items] + items[::2])
    tiny.type("upsert-cli run a.jsonl --task-id t --batch-size 16", expect=3)
    _change_task(tiny, "t", text_fields=["body"])
    process = tiny.start("upsert-cli restart t --failed-only")
    _halt_halfway(tiny, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    counts = tiny.info("t")["counts"]
    parts = ("inserted", "updated", "unchanged", "duplicate", "failed")
    assert counts["read"] == sum(counts[part] for part in parts) == ROWS + ROWS // 2
    tiny.type("upsert-cli restart t")
    counts = tiny.info("t")["counts"]
    assert (counts["duplicate"], counts["updated"], counts["failed"]) == (ROWS // 2, 0, 0)
    expected = {item["object_id"]: "old" for item in items} | {
        item["object_id"]: item["payload"]["text"] for item in items[::2]
    }
    assert {one: record["document"] for one, record in tiny.records().items()} == expected
