"""`run` and its results, typed as a user types it; everything is real, including the model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.items import Items, text_item
from tests.support.terminal import SAMPLES, Terminal
from tests.support.tiny_model import unloadable_model

EXAMPLE = {"object_id": "obj-1", "payload": {"text": "deep learning paper"}}


def test_the_example_item_becomes_a_task_and_a_record(terminal: Terminal) -> None:
    """The item of the API's own example is loaded by the real model, and its task has the contract's form."""
    terminal.write("a.jsonl", [EXAMPLE])
    terminal.type("upsert-cli run a.jsonl --task-id task-123")
    task = terminal.info("task-123")
    assert {"id", "status", "created_at", "updated_at", "failed_items"} <= set(task)
    assert task["id"] == "task-123"
    assert task["status"] == "done"
    assert task["failed_items"] == []
    assert task["running"] is False
    assert task["progress"] == {"rows": 1, "total": 1}
    assert task["sources"] == [str(terminal.folder / "a.jsonl")]
    assert task["counts"] == {
        "read": 1, "inserted": 1, "updated": 0, "unchanged": 0, "duplicate": 0, "failed": 0, "deleted": 0,
        "truncated": 0,
    }  # fmt: skip
    records = terminal.records()
    assert list(records) == ["obj-1"]
    assert records["obj-1"]["document"] == "deep learning paper"
    assert records["obj-1"]["metadata"].keys() == {"upsert_hash"}


def test_the_same_task_id_again_does_no_work(terminal: Terminal) -> None:
    """A task that is done is shown and not repeated."""
    terminal.write("a.jsonl", [EXAMPLE])
    terminal.type("upsert-cli run a.jsonl --task-id task-123")
    before = terminal.info("task-123")
    again = terminal.type("upsert-cli run a.jsonl --task-id task-123")
    assert "done already" in again.stderr
    assert terminal.info("task-123") == before


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ("b.jsonl", r"sources: \S*/a\.jsonl, now \S*/b\.jsonl"),
        ("a.jsonl --collection other", "collection: default, now other"),
        ("a.jsonl --text-field title --text-field text", "--text-field: text, now title, text"),
        ("a.jsonl --id-field object_id", "--id-field: not given, now object_id"),
    ],
)
def test_another_load_under_a_taken_id_is_refused(tiny: Terminal, other: str, difference: str) -> None:
    """A task id stands for one load; another load under it is refused with the differences, and nothing is written."""
    tiny.write("a.jsonl", [EXAMPLE | {"payload": {"text": "a", "title": "b"}}])
    tiny.write("b.jsonl", [EXAMPLE])
    tiny.type("upsert-cli run a.jsonl --task-id task-123")
    before = tiny.info("task-123")
    errors = tiny.type(f"upsert-cli run {other} --task-id task-123", expect=4).stderr
    assert re.search(rf"another load \({difference}\);", errors)
    assert tiny.info("task-123") == before


def test_a_changed_file_under_the_same_id_is_refused(tiny: Terminal) -> None:
    """A file whose content changed is another load, although its name is the same."""
    tiny.write("a.jsonl", [EXAMPLE])
    tiny.type("upsert-cli run a.jsonl --task-id task-123")
    tiny.write("a.jsonl", [EXAMPLE, {"object_id": "obj-2", "payload": {"text": "another"}}])
    assert "a.jsonl" in tiny.type("upsert-cli run a.jsonl --task-id task-123", expect=4).stderr


@pytest.mark.parametrize("name", ["articles.jsonl", "articles.parquet"])
def test_sample_articles_are_loaded_to_the_letter(tiny: Terminal, name: str) -> None:
    """Every sample item is in the collection once, with its text as the document and the rest as metadata."""
    tiny.type(f"upsert-cli run {SAMPLES / name}")
    items = [json.loads(line) for line in (SAMPLES / "articles.jsonl").read_text().splitlines()]
    records = tiny.records()
    assert records.keys() == {item["object_id"] for item in items}
    for item in items:
        record = records[item["object_id"]]
        assert record["document"] == item["payload"]["text"]
        assert "text" not in record["metadata"]
        for key, value in item["payload"].items():
            if key != "text" and isinstance(value, str | int | float):
                assert record["metadata"][key] == value


def test_loading_again_embeds_nothing(tiny: Terminal, tiny_model: Path, make_items: Items) -> None:
    """An unchanged file is all `unchanged`, and not even the model is loaded for it."""
    tiny.write("a.jsonl", make_items(300))
    tiny.type("upsert-cli run a.jsonl")
    before = tiny.records(vectors=True)
    tiny.env["UPSERT_CLI_RUN_MODEL_PATH"] = str(unloadable_model(tiny_model, tiny.folder / "unloadable"))
    again = tiny.type("upsert-cli run a.jsonl --json")
    summary = json.loads(again.stdout.splitlines()[-1])
    assert summary["counts"]["unchanged"] == summary["counts"]["read"] == 300
    assert tiny.records(vectors=True) == before


def test_the_model_is_loaded_for_texts_alone(tiny: Terminal, make_items: Items) -> None:
    """A new collection's texts have it loaded while that is opened; unchanged texts and own vectors do without."""
    tiny.write("a.jsonl", make_items(3))
    tiny.write("v.jsonl", [{"object_id": "v", "payload": {"text": "one", "vector": [0.5] * 384}}])
    for line, loads in (
        ("a.jsonl --task-id first", True),
        ("a.jsonl --task-id again", False),
        ("v.jsonl --task-id own --collection own", False),
    ):
        tiny.type(f"upsert-cli run {line}")
        assert ("loading" in tiny.info(line.split()[2])["seconds"]) is loads


def test_changed_metadata_is_written_without_embedding(tiny: Terminal, tiny_model: Path, make_items: Items) -> None:
    """Metadata that changed everywhere is `updated` everywhere, the vectors stay, a vanished key vanishes."""
    items = make_items(200)
    tiny.write("a.jsonl", items)
    tiny.type("upsert-cli run a.jsonl")
    before = tiny.records(vectors=True)
    for item in items:
        item["payload"]["color"] = "red"
        del item["payload"]["number"]
    tiny.write("a.jsonl", items)
    tiny.env["UPSERT_CLI_RUN_MODEL_PATH"] = str(unloadable_model(tiny_model, tiny.folder / "unloadable"))
    summary = json.loads(tiny.type("upsert-cli run a.jsonl --json").stdout.splitlines()[-1])
    assert summary["counts"]["updated"] == 200
    after = tiny.records(vectors=True)
    for identifier, record in after.items():
        assert record["vector"] == before[identifier]["vector"]
        assert record["metadata"]["color"] == "red"
        assert "number" not in record["metadata"]


def test_two_items_that_swap_their_texts_are_both_changed(tiny: Terminal) -> None:
    """Skipping goes by id and content, not by a set of known texts."""
    tiny.write("a.jsonl", [text_item("a", "one"), text_item("b", "two")])
    tiny.type("upsert-cli run a.jsonl")
    before = tiny.records(vectors=True)
    tiny.write("a.jsonl", [text_item("a", "two"), text_item("b", "one")])
    tiny.type("upsert-cli run a.jsonl")
    after = tiny.records(vectors=True)
    assert after["a"]["document"] == "two"
    assert after["a"]["vector"] == pytest.approx(before["b"]["vector"], abs=1e-6)
    assert after["b"]["vector"] == pytest.approx(before["a"]["vector"], abs=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_the_last_of_a_repeated_id_wins(tiny: Terminal, batch: int) -> None:
    """Wherever the rows of one id are, the collection holds the last one, and the counts add up."""
    rows = [
        text_item("a", "first"),
        text_item("b", "only"),
        text_item("a", "second"),
        text_item("a", "second"),
        text_item("a", "last"),
    ]
    tiny.write("a.jsonl", rows)
    summary = json.loads(tiny.type(f"upsert-cli run a.jsonl --batch-size {batch} --json").stdout.splitlines()[-1])
    assert tiny.records()["a"]["document"] == "last"
    counts = summary["counts"]
    assert counts["inserted"] == 2
    assert counts["inserted"] + counts["updated"] + counts["unchanged"] + counts["duplicate"] == counts["read"] == 5


def test_force_writes_again_what_has_not_changed(tiny: Terminal, make_items: Items) -> None:
    """With --force every item is embedded and written."""
    tiny.write("a.jsonl", make_items(20))
    tiny.type("upsert-cli run a.jsonl")
    summary = json.loads(tiny.type("upsert-cli run a.jsonl --force --json").stdout.splitlines()[-1])
    assert summary["counts"]["updated"] == 20


def test_bad_rows_cost_no_other_row(tiny: Terminal) -> None:
    """In a file with all kinds of bad rows, every good row is loaded and every bad row is named with its position."""
    tiny.type(f"upsert-cli run {SAMPLES / 'mixed_errors.jsonl'} --task-id mixed", expect=3)
    task = tiny.info("mixed")
    counts = task["counts"]
    assert task["status"] == "done"
    assert counts["failed"] > 15
    rejects = [json.loads(line) for line in tiny.type("upsert-cli info mixed --failed").stdout.splitlines()]
    assert len(rejects) == counts["failed"]
    assert all(reject["row"] >= 1 and reject["detail"] and reject["failure_stage"] for reject in rejects)
    assert task["failed_items"] == rejects[:20]
    assert len(tiny.records()) == counts["inserted"]
    tiny.type(f"upsert-cli run {SAMPLES / 'mixed_errors.jsonl'} --strict", expect=1)


def test_max_failures_stops_the_task(tiny: Terminal) -> None:
    """Above --max-failures the task ends as failed, at a checkpoint."""
    tiny.write("a.jsonl", [text_item("a", "good"), *[{"object_id": ""}] * 30])
    tiny.type("upsert-cli run a.jsonl --max-failures 10 --task-id t", expect=1)
    assert tiny.info("t")["status"] == "failed"
    tiny.type("upsert-cli run a.jsonl --max-failures 50%", expect=1)
    tiny.type("upsert-cli run a.jsonl --max-failures 30", expect=3)


def test_standard_input_is_spooled_and_can_be_read_again(tiny: Terminal, make_items: Items) -> None:
    """Input from a pipe is kept, so that a restart can read it again."""
    text = "".join(json.dumps(item) + "\n" for item in make_items(10))
    tiny.type("upsert-cli run - --task-id piped", stdin=text)
    assert len(tiny.records()) == 10
    tiny.type("upsert-cli restart piped --from-start")
    assert tiny.info("piped")["counts"]["unchanged"] == 10
    tiny.type("upsert-cli run - --task-id piped", stdin=text)
    tiny.type("upsert-cli run - --task-id piped", stdin=text + text, expect=4)


def test_folders_and_globs_name_their_files(tiny: Terminal) -> None:
    """A folder and a quoted glob stand for the item files in them, in order, each once."""
    (tiny.folder / "data" / "deep").mkdir(parents=True)
    tiny.write("data/a.jsonl", [text_item("a", "one")])
    tiny.write("data/deep/b.jsonl", [text_item("b", "two")])
    tiny.write("data/notes.txt", [text_item("c", "three")])
    tiny.type("upsert-cli run data 'data/*.jsonl' data/a.jsonl")
    assert tiny.records().keys() == {"a", "b"}
    assert tiny.only_task()["counts"]["read"] == 2


def test_a_folder_gives_what_its_writer_committed(tiny: Terminal) -> None:
    """Attempts that were not committed are skipped and counted, also by a mirror and under a reused id; tables are refused."""
    attempt = tiny.folder / "spark/_temporary/0/attempt_1"
    attempt.mkdir(parents=True)
    tiny.write("spark/part-0.jsonl", [{"object_id": "a", "payload": {"text": "good a"}}])
    bad = [{"object_id": one, "payload": {"text": "BAD"}} for one in ("a", "z")]
    tiny.write("spark/_temporary/0/attempt_1/part-1.jsonl", bad)
    said = tiny.type("upsert-cli run spark --task-id t --delete-missing").stderr
    assert "spark: skipped 1 file or folder whose name begins with `_` or `.`" in said
    assert {one: record["document"] for one, record in tiny.records().items()} == {"a": "good a"}
    tiny.write("spark/_temporary/0/attempt_1/part-2.jsonl", bad)
    assert "done already" in tiny.type("upsert-cli run spark --task-id t --delete-missing").stderr
    assert "skipped 1 file" in tiny.type("upsert-cli run spark --dry-run").stderr
    assert tiny.type("upsert-cli run spark -q").stderr == ""
    tiny.type("upsert-cli run spark/_temporary")
    assert len(tiny.records()) == 2
    (tiny.folder / "spark/_delta_log").mkdir()
    assert "spark is a Delta table" in tiny.type("upsert-cli run spark", expect=4).stderr


def test_id_and_text_fields_map_other_shapes(tiny: Terminal) -> None:
    """Records that are not in item form are loaded by naming their id and their texts."""
    tiny.write("a.jsonl", [{"id": 7, "title": "A title", "body": {"plain": "A body"}, "lang": "en"}])
    tiny.type("upsert-cli run a.jsonl --id-field id --text-field title --text-field body.plain")
    record = tiny.records()["7"]
    assert record["document"] == "A title\nA body"
    assert record["metadata"].keys() == {"lang", "upsert_hash"}


def test_a_missing_text_field_stops_before_there_is_a_task(tiny: Terminal) -> None:
    """If the first item has no text field, its fields are listed and nothing is created."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"title": "t", "body": "b"}}])
    error = tiny.type("upsert-cli run a.jsonl", expect=2).stderr
    assert "title" in error
    assert "body" in error
    assert tiny.type("upsert-cli list --json").stdout.strip() == "[]"


def test_categories_run_has_a_collection_of_its_own(tiny: Terminal) -> None:
    """`categories run` loads into the categories collection."""
    tiny.type(f"upsert-cli categories run {SAMPLES / 'categories.jsonl'}")
    assert tiny.only_task()["kind"] == "categories"
    assert len(tiny.records("categories")) == tiny.only_task()["counts"]["inserted"] > 20


def test_a_gpu_that_is_not_there_is_an_error(tiny: Terminal, make_items: Items) -> None:
    """`--device cuda` never falls back to the processor in silence; the task can be run without it."""
    tiny.write("a.jsonl", make_items(3))
    said = tiny.type("upsert-cli run a.jsonl --task-id t --device cuda", expect=1).stderr
    assert "--device cuda cannot be used" in said
    tiny.type("upsert-cli run a.jsonl --task-id t --device cpu --token-budget 64 --threads 1")
    assert len(tiny.records()) == 3


def test_a_gpu_is_not_for_a_table_of_vectors(terminal: Terminal, make_items: Items) -> None:
    """`--device cuda` is a usage error where the model has no network that a GPU could compute."""
    terminal.write("a.jsonl", make_items(3))
    said = terminal.type("upsert-cli run a.jsonl --device cuda --model minishlab/potion-base-8M", expect=2).stderr
    assert "is a table of vectors; use --device cpu" in said
    assert json.loads(terminal.type("upsert-cli list --json").stdout) == []


def test_another_model_in_the_collection_is_refused(tiny: Terminal, make_items: Items, other_model: str) -> None:
    """A collection that another model filled is left alone, although the dimension agrees."""
    tiny.write("a.jsonl", make_items(3))
    tiny.type("upsert-cli run a.jsonl")
    tiny.write("b.jsonl", make_items(3, mark="other"))
    before = tiny.records()
    said = tiny.type(f"upsert-cli run b.jsonl --task-id other {other_model}", expect=4).stderr
    assert "model" in said
    assert tiny.records() == before


def test_an_empty_file_is_done(tiny: Terminal) -> None:
    """A file without rows is nothing to do, and no failure."""
    tiny.write("a.jsonl", [])
    tiny.type("upsert-cli run a.jsonl")
    assert tiny.only_task()["status"] == "done"
    assert tiny.only_task()["counts"]["read"] == 0


@pytest.mark.parametrize(
    "line",
    [
        "upsert-cli run",
        "upsert-cli run missing.jsonl",
        "upsert-cli run 'no*.jsonl'",
        "upsert-cli run a.txt",
        "upsert-cli run a.jsonl --task-id -x",
        "upsert-cli run a.jsonl --task-id a/b",
        "upsert-cli run a.jsonl --batch-size 0",
        "upsert-cli run a.jsonl --max-failures many",
        "upsert-cli run a.jsonl --max-failures 101%",
        "upsert-cli run a.jsonl --model no/such-model",
        "upsert-cli run a.jsonl --nonsense",
        "upsert-cli list --status nonsense",
        "upsert-cli nonsense",
    ],
)
def test_usage_errors_exit_with_2(terminal: Terminal, line: str) -> None:
    """A usage error is one line with the reason, and creates no task."""
    terminal.write("a.jsonl", [EXAMPLE])
    terminal.write("a.txt", [EXAMPLE])
    done = terminal.type(line, expect=2)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert done.stderr.strip()
