"""`collections`: a target's collections and their newest tasks, without a lock and without Chroma."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support.terminal import Terminal
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.leases import Holder, Lease
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


def test_the_collections_are_listed(loaded: Terminal) -> None:
    """The list has each collection's records, dimension, model and newest task, even during a load."""
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
    """A folder without Chroma differs from one without collections, and so does a file that is not its database."""
    assert "there is no Chroma in" in terminal.type("upsert-cli collections", expect=1).stderr
    assert not (terminal.folder / "chroma").exists()
    (terminal.folder / "chroma").mkdir()
    (terminal.folder / "chroma" / "chroma.sqlite3").write_bytes(b"garbage" * 1000)
    [said] = terminal.type("upsert-cli collections", expect=1).stderr.splitlines()
    assert "file is not a database" in said


# -- delete ---------------------------------------------------------------------------------------------------------


def _names(terminal: Terminal) -> list[str]:
    return [one["collection"] for one in json.loads(terminal.type("upsert-cli collections list --json").stdout)]


def test_a_collection_is_deleted_with_its_records(loaded: Terminal) -> None:
    """The message counts the deleted records; the other collection, the tasks and the folder stay usable."""
    done = loaded.type("upsert-cli collections delete categories --yes")
    assert "deleted the collection categories of" in done.stderr
    assert "with 5 records" in done.stderr
    assert done.stdout == ""
    assert _names(loaded) == ["default"]
    assert loaded.info("kinds")["status"] == "done"
    assert len(loaded.records()) == 5
    told = json.loads(loaded.type("upsert-cli collections delete default --yes --json").stdout)
    assert told == {"collection": "default", "chroma": str(loaded.folder / "chroma"), "records": 5}
    loaded.type("upsert-cli run a.jsonl")
    assert len(loaded.records()) == 5


def test_a_damaged_collection_can_be_deleted(loaded: Terminal) -> None:
    """Neither an index that cannot be read nor its files stay; the next load makes a new one."""
    folders = [path for path in (loaded.folder / "chroma").iterdir() if path.is_dir()]
    assert len(folders) == 2
    for folder in folders:
        for file in folder.iterdir():
            file.write_bytes(b"damaged")
    loaded.type("upsert-cli verify --collection default", expect=1)
    assert "with 5 records" in loaded.type("upsert-cli collections delete default --yes").stderr
    assert "with 5 records" in loaded.type("upsert-cli collections delete categories --yes").stderr
    assert not [path for path in (loaded.folder / "chroma").iterdir() if path.is_dir()]
    loaded.type("upsert-cli run a.jsonl --task-id again --verify")


def test_nothing_is_deleted_without_a_yes(loaded: Terminal) -> None:
    """It never asks, not even on a terminal, and a name is needed."""
    assert "--yes confirms it" in loaded.type("upsert-cli collections delete default", expect=2).stderr
    assert "NAME is missing" in loaded.type("upsert-cli collections delete --yes", expect=2).stderr
    assert _names(loaded) == ["categories", "default"]


def test_an_unknown_collection_is_an_error(loaded: Terminal) -> None:
    """The message says that nothing was deleted, and how to list the collections."""
    said = loaded.type("upsert-cli collections delete none --yes", expect=1).stderr
    assert "there is no collection none" in said and "nothing was deleted" in said
    assert "upsert-cli collections list --chroma" in said
    loaded.type("upsert-cli collections delete x --yes --chroma none", expect=1)
    assert not (loaded.folder / "none").exists()
    assert _names(loaded) == ["categories", "default"]


def test_a_target_in_use_is_refused(loaded: Terminal) -> None:
    """A load and another program that has the folder open are named with their process, and nothing is deleted."""
    with Lease.take(loaded.folder / "chroma" / LEASE_NAME, Holder.this_process("other")):
        said = loaded.type("upsert-cli collections delete default --yes", expect=4).stderr
        assert f"pid {os.getpid()}" in said and "other" in said
    with (loaded.folder / "chroma" / "chroma.sqlite3").open("rb"):
        said = loaded.type("upsert-cli collections delete default --yes", expect=4).stderr
        assert f"pid {os.getpid()}" in said
    assert _names(loaded) == ["categories", "default"]


def test_tasks_of_a_deleted_collection_say_what_happened(loaded: Terminal) -> None:
    """`verify` and a continuing `restart` name the missing collection and the command that loads it again, which works."""
    bad = [{"object_id": "0", "payload": {"text": "x"}}, {"object_id": "bad", "payload": {}}]
    loaded.write("b.jsonl", bad)
    loaded.type("upsert-cli run b.jsonl --task-id halted --collection other --batch-size 1 --max-failures 0", expect=1)
    loaded.type("upsert-cli collections delete default --yes")
    loaded.type("upsert-cli collections delete other --yes")
    before = loaded.info("halted")
    for line, code in (("verify first", 1), ("restart halted", 4), ("restart halted --max-failures 100%", 4)):
        said = loaded.type(f"upsert-cli {line}", expect=code).stderr
        assert "any more, although task" in said
        assert f"`upsert-cli restart {line.split()[1]} --from-start`" in said
    assert loaded.info("halted") == before
    loaded.type("upsert-cli restart first --from-start")
    loaded.type("upsert-cli verify first")
    loaded.type("upsert-cli restart halted --from-start --max-failures 100%", expect=3)
    assert len(loaded.records("other")) == 1


def test_settings_and_variables_of_the_group_count_for_its_commands(loaded: Terminal) -> None:
    """The target from `[collections]` or its variable applies to `list` and `delete` as well as to `collections`."""
    (loaded.folder / "upsert-cli.toml").write_text('[collections]\nchroma = "elsewhere"\n')
    assert "elsewhere" in loaded.type("upsert-cli collections", expect=1).stderr
    assert "elsewhere" in loaded.type("upsert-cli collections delete x --yes", expect=1).stderr
    loaded.env["UPSERT_CLI_COLLECTIONS_CHROMA"] = "chroma"
    assert _names(loaded) == ["categories", "default"]


def test_options_alone_list_the_collections(loaded: Terminal) -> None:
    """`collections` with or without options is `collections list`; a wrong command is not."""
    listed = loaded.type("upsert-cli collections list --chroma chroma").stdout
    for line in ("collections", "collections --chroma chroma", "collections -q"):
        assert loaded.type(f"upsert-cli {line}").stdout == listed
    assert (
        "did you mean `upsert-cli collections delete`?" in loaded.type("upsert-cli collections rm x", expect=2).stderr
    )
    assert "delete" in loaded.type("upsert-cli collections --help").stdout
