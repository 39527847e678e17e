"""`collections`: what a target holds, and by which task, without a lock and without Chroma."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.terminal import Terminal
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.locks import Holder, Lease
from upsert_cli.store.folder import LEASE_NAME


@pytest.fixture
def loaded(tiny: Terminal) -> Terminal:
    """Return a terminal with two collections, and a task that was refused."""
    vector = [1.0] * 384  # of the items' own, so that no model has to be loaded
    payloads = ({"text": f"text {number}", "vector": [*vector[1:], number]} for number in range(5))
    tiny.write("a.jsonl", [{"object_id": str(number), "payload": one} for number, one in enumerate(payloads)])
    tiny.type("upsert-cli run a.jsonl --task-id first")
    tiny.type("upsert-cli categories run a.jsonl --task-id kinds")
    with Lease.take(tiny.folder / "chroma" / LEASE_NAME, Holder.this_process("other")):
        tiny.type("upsert-cli run a.jsonl --task-id second", expect=4)
    return tiny


def test_it_lists_what_is_there(loaded: Terminal) -> None:
    """Records, dimension, model and the newest task of each collection, also beside a load; a task elsewhere is none of it."""
    with Lease.take(loaded.folder / "chroma" / LEASE_NAME, Holder.this_process("other")):
        found = json.loads(loaded.type("upsert-cli collections --json").stdout)
    kinds, default = loaded.info("kinds"), loaded.info("first")
    assert found == [
        {
            "collection": "categories",
            "records": 5,
            "dimension": 384,
            "model": DEFAULT_MODEL,
            "task": {"id": "kinds", "status": "done", "finished_at": kinds["finished_at"]},
        },
        {
            "collection": "default",
            "records": 5,
            "dimension": 384,
            "model": DEFAULT_MODEL,
            "task": {"id": "first", "status": "done", "finished_at": default["finished_at"]},
        },
    ]
    rows = [line.split("\t") for line in loaded.type("upsert-cli collections").stdout.splitlines()]
    assert rows[0] == ["COLLECTION", "RECORDS", "DIMENSION", "TASK", "STATUS", "FINISHED", "MODEL"]
    assert rows[1][:5] == ["categories", "5", "384", "kinds", "done"]
    # The same collections at another place were loaded by no task of this journal.
    shutil.copytree(loaded.folder / "chroma", loaded.folder / "copy")
    moved = json.loads(loaded.type("upsert-cli collections --chroma copy --json").stdout)
    assert [one["task"] for one in moved] == [None, None]


def test_a_folder_without_chroma_is_an_error(terminal: Terminal, tmp_path: Path) -> None:
    """No Chroma is not the same as no collections, and neither is a file that is none of its database."""
    assert "there is no Chroma in" in terminal.type("upsert-cli collections", expect=1).stderr
    assert not (terminal.folder / "chroma").exists()
    (terminal.folder / "chroma").mkdir()
    (terminal.folder / "chroma" / "chroma.sqlite3").write_bytes(b"garbage" * 1000)
    [said] = terminal.type("upsert-cli collections", expect=1).stderr.splitlines()
    assert "file is not a database" in said
