"""`collections rename`: nothing is lost however it ends, and no task continues in another collection."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.loading import a_target, opened, plain_client, some_rows
from tests.support.terminal import Terminal
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.journal import Journal
from upsert_cli.leases import Holder, Lease
from upsert_cli.load.renames import followed_by_tasks
from upsert_cli.store.folder import LEASE_NAME


@pytest.fixture
def loaded(tiny: Terminal) -> Terminal:
    """Return a terminal with the collections `old`, of items a and b, and `new`, of a with another text."""
    for name, texts in {"old": {"a": "first", "b": "second"}, "new": {"a": "changed"}}.items():
        vectors = [[1.0] * 383 + [len(text)] for text in texts.values()]  # so that no model has to be loaded
        payloads = zip(texts.values(), vectors, strict=True)
        items = [
            {"object_id": key, "payload": {"text": text, "vector": vector}}
            for key, (text, vector) in zip(texts, payloads, strict=True)
        ]
        tiny.write(f"{name}.jsonl", items)
        tiny.type(f"upsert-cli run {name}.jsonl --collection {name} --task-id {name}")
    return tiny


def _collections(terminal: Terminal, target: str = "chroma") -> dict[str, int]:
    listed = json.loads(terminal.type(f"upsert-cli collections --chroma {target} --json").stdout)
    return {one["collection"]: one["records"] for one in listed}


def _kept(terminal: Terminal) -> str:
    [name] = [name for name in _collections(terminal) if ".before-" in name]
    return name


def test_a_collection_gets_another_name(loaded: Terminal) -> None:
    """Its records and its stamp stay, and a load under the new name goes on with it."""
    before = loaded.records("old", vectors=True)
    said = loaded.type("upsert-cli collections rename old docs").stderr
    assert "to docs, with 2 records" in said and "former" not in said
    assert _collections(loaded) == {"docs": 2, "new": 1}
    assert loaded.records("docs", vectors=True) == before
    loaded.type("upsert-cli run old.jsonl --collection docs --task-id again --verify")
    assert loaded.info("again")["counts"]["unchanged"] == 2


def test_an_existing_name_is_refused_or_kept_under_another(loaded: Terminal) -> None:
    """Without --replace nothing changes; with it both collections stay whole."""
    old, new = loaded.records("old", vectors=True), loaded.records("new", vectors=True)
    assert "--replace keeps it" in loaded.type("upsert-cli collections rename new old", expect=4).stderr
    assert _collections(loaded) == {"old": 2, "new": 1}
    done = json.loads(loaded.type("upsert-cli collections rename new old --replace --json").stdout)
    kept = _kept(loaded)
    assert done == {
        "collection": "old",
        "chroma": str(loaded.folder / "chroma"),
        "renamed": "new",
        "records": 1,
        "kept": kept,
    }
    assert loaded.records(kept, vectors=True) == old
    assert loaded.records("old", vectors=True) == new
    loaded.type(f"upsert-cli collections rename {kept} new")  # and back
    assert _collections(loaded) == {"old": 1, "new": 2}


@pytest.mark.parametrize(
    ("names", "code", "says"),
    [
        ("none docs", 1, "there is no collection none"),
        ("old ab", 2, "3 to 512"),
        ("old -- -abc", 2, "begins and ends with a letter or digit"),
        (f"old {'x' * 513}", 2, "3 to 512"),
        ("old old", 2, "has that name already"),
        ("old", 2, "NEW is missing"),
    ],
)
def test_errors_change_nothing(loaded: Terminal, names: str, code: int, says: str) -> None:
    """Names are checked before anything is opened."""
    assert says in loaded.type(f"upsert-cli collections rename --replace {names}", expect=code).stderr
    assert _collections(loaded) == {"old": 2, "new": 1}


def test_a_long_name_leaves_room_for_the_name_of_the_old_collection(loaded: Terminal) -> None:
    """A name to which no time can be added is refused before the first step."""
    long = "x" * 500
    loaded.type(f"upsert-cli collections rename old {long}")
    loaded.type(f"upsert-cli collections rename new {long} --replace", expect=2)
    assert _collections(loaded) == {long: 2, "new": 1}


def test_a_target_in_use_is_refused(loaded: Terminal) -> None:
    """A load and another program that has the folder open are named with their process."""
    for line in ("rename old docs", "rename new old --replace"):
        with Lease.take(loaded.folder / "chroma" / LEASE_NAME, Holder.this_process("other")):
            assert f"pid {os.getpid()}" in loaded.type(f"upsert-cli collections {line}", expect=4).stderr
        with (loaded.folder / "chroma" / "chroma.sqlite3").open("rb"):
            assert f"pid {os.getpid()}" in loaded.type(f"upsert-cli collections {line}", expect=4).stderr
    assert _collections(loaded) == {"old": 2, "new": 1}


@pytest.mark.parametrize("step", [1, 2])
def test_a_death_between_the_steps_is_completed_by_the_same_command(loaded: Terminal, step: int) -> None:
    """After each step both collections are whole under some name, and the same command completes the rest."""
    old, new = loaded.records("old", vectors=True), loaded.records("new", vectors=True)
    aside = "old.before-20261128T120000Z"
    with plain_client(replace(a_target(loaded.folder), path=str(loaded.folder / "chroma"))) as client:
        client.get_collection("old", embedding_function=None).modify(name=aside)
        if step > 1:
            client.get_collection("new", embedding_function=None).modify(name="old")
    loaded.type("upsert-cli collections rename new old --replace", expect=0 if step == 1 else 1)
    assert loaded.records("old", vectors=True) == new
    assert loaded.records(aside, vectors=True) == old


def test_a_failure_of_the_second_step_undoes_the_first(tmp_path: Path) -> None:
    """If the collection cannot be renamed, the collection that it was to replace gets its name back."""
    target = replace(a_target(tmp_path), collection="new")
    for name in ("old", "new"):
        with opened(replace(target, collection=name)) as (store, _):
            store.write(some_rows([name]))
    with opened(replace(target, as_found=True, as_a_whole=True)) as (store, _):
        with plain_client(target) as client:
            client.delete_collection("new")
        with pytest.raises(UpsertCliError):
            store.rename("old", aside="old.before")
    with plain_client(target) as client:
        assert [collection.name for collection in client.list_collections()] == ["old"]


def test_an_unclean_folder_stays_unclean(loaded: Terminal) -> None:
    """A rename does not look at the indexes, so the next load has to; the setting that is owed follows the name."""
    path = loaded.folder / "chroma" / LEASE_NAME
    with Lease.take(path, Holder.this_process("other")) as lease:
        lease.write(replace(Holder.this_process("other"), clean=False, owed={"new": 700}))
    loaded.type("upsert-cli collections rename new docs")
    with Lease.take(path, Holder.this_process("other")) as lease:
        assert lease.before is not None
        assert (lease.before.clean, lease.before.owed) == (False, {"docs": 700})


def test_unfinished_tasks_follow_their_collection(tiny: Terminal) -> None:
    """A restart continues in the collection that the task began to fill; a done task stays with the name."""
    bad = [{"object_id": "0", "payload": {"text": "x"}}, {"object_id": "bad", "payload": {}}]
    tiny.write("a.jsonl", [*bad, *({"object_id": f"more-{number}", "payload": {"text": "y"}} for number in range(40))])
    tiny.write("b.jsonl", bad[:1])
    for name in ("docs", "next"):
        line = f"upsert-cli run a.jsonl --task-id in-{name} --collection {name} --batch-size 1 --max-failures 0"
        tiny.type(line, expect=1)
    tiny.type("upsert-cli run b.jsonl --task-id done --collection docs")
    tiny.type("upsert-cli collections rename next docs --replace")
    kept = _kept(tiny)
    assert [tiny.info(name)["collection"] for name in ("in-docs", "in-next", "done")] == [kept, "docs", "docs"]
    before = tiny.records("docs")
    tiny.type("upsert-cli restart in-docs --max-failures 100%", expect=3)
    assert (len(tiny.records(kept)), tiny.records("docs")) == (41, before)
    tiny.type("upsert-cli restart in-next --max-failures 100%", expect=3)
    assert (len(tiny.records("docs")), len(before) < 41) == (41, True)


@pytest.mark.parametrize(
    ("steps", "completed_by"), [(0, "rename"), (1, "rename"), (2, "rename"), (1, "restart"), (2, "work")]
)
def test_unfinished_tasks_follow_a_rename_that_died(tiny: Terminal, steps: int, completed_by: str) -> None:
    """Whichever steps were made, the next command lets each task continue in the collection that it began to fill."""
    bad = [{"object_id": "0", "payload": {"text": "x"}}, {"object_id": "bad", "payload": {}}]
    tiny.write("a.jsonl", [*bad, {"object_id": "more", "payload": {"text": "y"}}])
    for name in ("old", "new"):
        line = f"upsert-cli run a.jsonl --task-id in-{name} --collection {name} --batch-size 1 --max-failures 0"
        tiny.type(line, expect=1)
        tiny.type(f"upsert-cli restart in-{name} --max-failures 100% --enqueue")
    chroma, aside = str(tiny.folder / "chroma"), "old.before-20261128T120000Z"
    with (
        pytest.raises(KeyboardInterrupt),  # as if it died: nothing is done after that
        closing(Journal(tiny.journal)) as journal,
        followed_by_tasks(journal, chroma, "new", "old", kept=aside),
    ):
        with plain_client(replace(a_target(tiny.folder), path=chroma)) as client:
            for name, to in (("old", aside), ("new", "old"))[:steps]:
                client.get_collection(name, embedding_function=None).modify(name=to)
        raise KeyboardInterrupt
    if completed_by == "rename":
        done = json.loads(tiny.type("upsert-cli collections rename new old --replace --json").stdout)
        assert (done["collection"], done["kept"]) == ("old", _kept(tiny))
    places = {"in-old": _kept(tiny) if steps or completed_by == "rename" else "old"}
    places["in-new"] = "old" if steps == 2 or completed_by == "rename" else "new"
    if completed_by == "work":
        tiny.type("upsert-cli work", expect=3)
    else:
        for task_id in places:
            tiny.type(f"upsert-cli restart {task_id}", expect=3)
    assert {task_id: tiny.info(task_id)["collection"] for task_id in places} == places
    assert [_collections(tiny)[name] for name in places.values()] == [2, 2]
    assert not list(tiny.journal.glob("renames/*"))


def test_a_task_of_another_journal_does_not_continue_in_a_new_collection(tiny: Terminal) -> None:
    """The task reports that its collection was deleted or renamed, and creates no other."""
    bad = [{"object_id": "0", "payload": {"text": "x"}}, {"object_id": "bad", "payload": {}}]
    tiny.write("a.jsonl", bad)
    tiny.type("upsert-cli run a.jsonl --task-id t --collection docs --batch-size 1 --max-failures 0", expect=1)
    tiny.type("upsert-cli collections rename docs other --journal elsewhere")
    said = tiny.type("upsert-cli restart t --max-failures 100%", expect=4).stderr
    assert "it was deleted or renamed; `upsert-cli restart t --from-start` loads all rows again" in said
    assert _collections(tiny) == {"other": 1}
