"""A collection as a source: moved, embedded again, interrupted, filtered; with everything that works for files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.items import Items
from tests.support.other_program import (
    ROWS,
    as_written,
    floats_rounded,
    plain_chroma,
    some_records,
    without_hash,
    write_records,
)
from tests.support.terminal import Terminal
from upsert_cli.documents.stored_items import joined
from upsert_cli.store.collection_source import collection_named


@pytest.fixture
def docs(tiny: Terminal, old_folder: Path) -> list[dict[str, Any]]:
    """Return the records of a collection `docs` in the folder `old`, which another program wrote."""
    shutil.copytree(old_folder, tiny.folder / "old")
    return some_records(ROWS)


def test_a_collection_is_loaded_like_a_file(tiny: Terminal, docs: list[dict[str, Any]]) -> None:
    """Ids, documents and metadata equal the source's, and the source's bytes stay unchanged."""
    before = _bytes_below(tiny.folder / "old")
    tiny.type("upsert-cli run chroma:./old#docs --collection docs")
    found = json.loads(tiny.type("upsert-cli verify latest --json", expect=None).stdout)
    assert (found["records"], found["rows"], found["missing"]["count"], found["different"]["count"]) == (
        ROWS,
        ROWS,
        0,
        0,
    )
    stored = without_hash(tiny.records("docs"))
    assert floats_rounded(stored) == floats_rounded(as_written(docs))
    assert _bytes_below(tiny.folder / "old") == before
    task = tiny.only_task()
    assert task["progress"] == {"rows": ROWS, "total": ROWS}
    assert task["sources"] == [f"chroma:{tiny.folder / 'old'}#docs"]
    again = tiny.type("upsert-cli run chroma:old#docs --collection docs")
    assert f"{ROWS} unchanged" in again.stderr


def _bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_collection_is_embedded_again_next_to_itself(tiny: Terminal, docs: list[dict[str, Any]]) -> None:
    """Source and target may be collections of one folder, but not the same collection under any spelling."""
    tiny.type("upsert-cli run chroma:./old#docs --chroma old --collection docs-2")
    for target in ("old", "./old/", "old/../old"):
        said = tiny.type(f"upsert-cli run chroma:old#docs --chroma {target} --collection docs", expect=2)
        assert "is the collection to load into" in said.stderr
    assert len(docs) == tiny.only_task()["counts"]["inserted"]


def test_a_killed_load_continues(tiny: Terminal, docs: list[dict[str, Any]]) -> None:
    """After kill -9 in the middle, a restart reads the rest, and the result equals an undisturbed load."""
    line = "upsert-cli run chroma:old#docs --collection docs --task-id move --batch-size 64"
    with tiny.start(line) as process:
        tiny.wait_for_rows("move")
        process.kill()
    tiny.type(line)
    assert tiny.info("move")["counts"]["read"] == ROWS
    assert floats_rounded(without_hash(tiny.records("docs"))) == floats_rounded(as_written(docs))


def test_a_changed_collection_is_noticed(tiny: Terminal, docs: list[dict[str, Any]]) -> None:
    """A restart is refused if the collection changed since the checkpoint; from the start, it loads the new content."""
    tiny.type("upsert-cli run chroma:old#docs --collection docs --task-id move --max-failures 0 --limit 100")
    docs[5]["document"] = "another"
    write_records(tiny, docs[5:6])
    said = tiny.type("upsert-cli verify move", expect=4)
    assert "chroma:old#docs changed" in said.stderr
    said = tiny.type("upsert-cli run chroma:old#docs --collection docs --task-id move --limit 100", expect=4)
    assert "other content" in said.stderr
    tiny.type("upsert-cli restart move --from-start")
    stored = tiny.records("docs")
    assert len(stored) == 100
    assert stored["doc 5"]["document"] == "another"


def test_a_filter_chooses_records(tiny: Terminal, docs: list[dict[str, Any]]) -> None:
    """Only the records that Chroma's filter chooses are read; the filter is part of the task."""
    line = """upsert-cli run chroma:old#docs --collection docs --task-id move --where '{"number": {"$lt": 120}}'"""
    tiny.type(f"{line} --limit 50")
    assert [*tiny.records("docs")] == [one["id"] for one in docs[:50]]
    assert "--limit" in tiny.type(line, expect=4).stderr
    tiny.type(line.replace("move", "move-2"))
    assert len(tiny.records("docs")) == 120
    said = tiny.type(line.replace("$lt", "$below").replace("move", "move-3"), expect=2)
    assert "takes a filter of Chroma's" in said.stderr
    tiny.write("a.jsonl", [])
    assert "goes with a collection" in tiny.type("""upsert-cli run a.jsonl --where '{"a": 1}'""", expect=2).stderr


def test_records_without_a_document_are_rejected(tiny: Terminal) -> None:
    """Records without a document cannot be embedded; the others are loaded, and the rejects can be read again."""
    records = some_records(4)
    for number, document in ((1, None), (2, " ")):
        records[number]["document"] = document
    records[3]["metadata"] = None
    write_records(tiny, records)
    said = tiny.type("upsert-cli run chroma:old#docs --collection docs", expect=3)
    assert "the record has no document, so there is no text to embed" in said.stderr
    assert "the record has a blank document" in said.stderr
    assert [*tiny.records("docs")] == ["doc 0", "doc 3"]
    failed = [json.loads(line) for line in tiny.type("upsert-cli info latest --failed").stdout.splitlines()]
    assert [one["object_id"] for one in failed] == ["doc 1", "doc 2"]


def test_preview_and_dry_run_read_a_collection(tiny: Terminal, docs: list[dict[str, Any]]) -> None:
    """Both show what a load would do; a template sees the document as `text` if the metadata has no such key."""
    said = tiny.type("upsert-cli preview chroma:old#docs --json --template '{source}: {number}'")
    assert json.loads(said.stdout.splitlines()[0])["document"] == "a/b.pdf: 0"
    said = tiny.type("upsert-cli run chroma:old#docs --dry-run --no-compare")
    assert f"{len(docs)} inserted" in said.stderr


def test_a_preview_of_kept_vectors_asks_for_no_tokenizer(tiny: Terminal, docs: list[dict[str, Any]]) -> None:
    """Nothing is embedded, so there are no tokens to count, and no remedy for their absence."""
    said = tiny.type("upsert-cli preview chroma:old#docs --keep-vectors --json --limit 1")
    [record] = map(json.loads, said.stdout.splitlines())
    assert (record["id"], record["tokens"], record["truncated"]) == (docs[0]["id"], None, False)
    assert "tokenizer" not in said.stderr


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("chroma:old", "is named as chroma:TARGET#COLLECTION"),
        ("chroma:#docs", "is named as chroma:TARGET#COLLECTION"),
        ("chroma:old#none", "there is no collection none in"),
        ("chroma:nowhere#docs", "nowhere; no Chroma is in that folder"),
        ("chroma:http://user:s3cret-pw@host#docs", "has a user or password in it"),
        ("chroma:http://user:s3cret-pw@host", "is named as chroma:TARGET#COLLECTION"),
    ],
)
def test_a_wrong_name_is_refused(tiny: Terminal, old_folder: Path, source: str, message: str) -> None:
    """Before anything is made, with the form that a name has, and without a password."""
    shutil.copytree(old_folder, tiny.folder / "old")
    said = tiny.type(f"upsert-cli run {source}", expect=2).stderr
    assert message in said
    assert "s3cret" not in said
    assert not (tiny.folder / "nowhere").exists()


# -- vectors that are kept ---------------------------------------------------------------------------------------------


def test_a_copy_of_our_collection_is_our_collection(tiny: Terminal, make_items: Items) -> None:
    """The model, the hashes and each bit of the vectors are copied: the same file then changes nothing."""
    tiny.write("a.jsonl", make_items(200))
    tiny.type("upsert-cli run a.jsonl --chroma there --collection articles")
    tiny.type("upsert-cli run chroma:there#articles --keep-vectors --collection articles --scope other")
    before, after = (tiny.records("articles", vectors=True, folder=folder) for folder in ("there", "chroma"))
    assert after.keys() == before.keys()
    for one, record in before.items():
        assert record["vector"] == after[one]["vector"]
    tiny.type("upsert-cli run chroma:there#articles --keep-vectors --collection plain")
    again = tiny.type("upsert-cli run a.jsonl --collection plain")
    assert "200 unchanged" in again.stderr
    tiny.type("upsert-cli verify --collection plain", expect=None)
    found = tiny.type(
        f"upsert-cli query 'text 7' --collection plain --model-path {tiny.env['UPSERT_CLI_RUN_MODEL_PATH']}"
    )
    assert "obj-" in found.stdout
    other = tiny.type("upsert-cli run chroma:there#articles --keep-vectors --split", expect=2)
    assert "does not go with --split" in other.stderr


def test_chunks_are_kept_with_their_vectors(tiny: Terminal, make_items: Items) -> None:
    """A collection of chunks and averages is copied record by record, and a load of the same file changes nothing."""
    items = make_items(5)
    items[2]["payload"]["text"] = " ".join(f"word{number} of a long text." for number in range(150))
    tiny.write("a.jsonl", items)
    how = "--split --max-tokens 64 --average"
    tiny.type(f"upsert-cli run a.jsonl --chroma there --collection chunks {how}")
    tiny.type("upsert-cli run chroma:there#chunks --keep-vectors --collection chunks")
    again = tiny.type(f"upsert-cli run a.jsonl --collection chunks {how}")
    assert "5 unchanged" in again.stderr


def test_a_lost_vector_costs_one_record(tiny: Terminal) -> None:
    """Records without a document keep their vectors, and the copy has the source's distance."""
    records = some_records(3)
    records[1]["document"] = None
    write_records(tiny, records)
    tiny.type("upsert-cli run chroma:old#docs --keep-vectors --collection docs")
    stored = tiny.records("docs", vectors=True)
    assert stored["doc 1"]["document"] is None
    assert stored["doc 1"]["vector"] == [np.float32(number) for number in records[1]["vector"]]
    said = tiny.type(
        "upsert-cli run chroma:old#docs --collection docs --keep-vectors --model BAAI/bge-small-en", expect=2
    )
    assert "goes without --model" in said.stderr
    said = tiny.type("upsert-cli run chroma:old#docs --collection docs --model none", expect=2)
    assert "--keep-vectors copies the vectors" in said.stderr


def test_a_vector_of_zeros_costs_one_record(tiny: Terminal) -> None:
    """A dry run and a preview foresee the reject of a record whose vector is close to no other."""
    records = some_records(3)
    records[1]["vector"] = [0.0, 0.0, 0.0]
    write_records(tiny, records)
    line = "upsert-cli run chroma:old#docs --keep-vectors --collection docs"
    for said in (tiny.type(f"{line} --dry-run", expect=3), tiny.type(line, expect=3)):
        assert "2 inserted, 0 updated, 0 unchanged, 1 rejected" in said.stderr
        assert "docs:2: on_reading: its vector is all zeros" in said.stderr
    assert [*tiny.records("docs")] == ["doc 0", "doc 2"]
    previewed = tiny.type("upsert-cli preview chroma:old#docs --keep-vectors --json").stdout.splitlines()
    assert [json.loads(line)["type"] for line in previewed] == ["record", "reject", "record"]


@pytest.mark.parametrize("batch", ["", "--batch-size 2"])
def test_of_two_collections_the_last_vector_of_an_id_wins(tiny: Terminal, batch: str) -> None:
    """Ids that are in both sources are duplicates, in one batch or in several, and keep the vectors of the last."""
    first, second = some_records(6), some_records(9, mark="second")[3:]
    for record in second:
        record["vector"][0] = 7.0
    write_records(tiny, first)
    write_records(tiny, second, folder="other")
    line = f"upsert-cli run chroma:old#docs chroma:other#docs --keep-vectors --collection docs --task-id t {batch}"
    tiny.type(line)
    counts = tiny.info("t")["counts"]
    assert (
        counts["read"],
        counts["inserted"] + counts["updated"] + counts["duplicate"],
        len(tiny.records("docs")),
    ) == (12, 12, 9)
    stored = tiny.records("docs", vectors=True)
    assert [stored[f"doc {number}"]["vector"][0] for number in range(9)] == [1.0] * 3 + [7.0] * 6
    assert [stored[f"doc {number}"]["document"].split()[0] for number in range(9)] == ["first"] * 3 + ["second"] * 6
    tiny.type("upsert-cli verify t")


# -- chunks ------------------------------------------------------------------------------------------------------------


def test_chunks_become_their_items_again(tiny: Terminal, make_items: Items) -> None:
    """Items that were split without an overlap are embedded again as the whole items, also in other chunks."""
    items = make_items(1_100)
    for number, item in enumerate(items):
        count = number + 60 if number in (3, 500, 1_090) else 1
        item["payload"]["text"] = " ".join(f"word{each} of text {number}." for each in range(count))
    tiny.write("a.jsonl", items)
    tiny.type("upsert-cli run a.jsonl --chroma there --collection chunks --split --max-tokens 64 --average")
    said = tiny.type("upsert-cli run chroma:there#chunks --collection whole")
    assert "holds chunks of --split" in said.stderr
    assert "1,100 inserted" in said.stderr, said.stderr
    assert "1,100 unchanged" in tiny.type("upsert-cli run a.jsonl --collection whole").stderr
    tiny.type("upsert-cli run chroma:there#chunks --collection others --split --max-tokens 32")
    assert "1,100 unchanged" in tiny.type("upsert-cli run a.jsonl --collection others --split --max-tokens 32").stderr


def test_chunks_that_overlap_or_lack_one_stay_chunks(tiny: Terminal, make_items: Items) -> None:
    """Chunks that cannot be joined for certain are loaded unchanged: no text is invented, and none is lost."""
    items = make_items(3)
    for number, count in enumerate((100, 80, 1)):
        items[number]["payload"]["text"] = " ".join(f"word{each} of a long text." for each in range(count))
    tiny.write("a.jsonl", items)
    tiny.type("upsert-cli run a.jsonl --chroma there --collection chunks --split --max-tokens 64 --overlap 16")
    chunks = tiny.records("chunks", folder="there")
    tiny.type("upsert-cli run chroma:there#chunks --collection copy")
    stored = tiny.records("copy")
    assert {one: record["document"] for one, record in stored.items() if "#" in one} == {
        one: record["document"] for one, record in chunks.items() if one != "obj-00002#0"
    }
    assert stored["obj-00002"]["document"] == items[2]["payload"]["text"]


_DELETE_LAST = """
collection = client.get_collection("chunks", embedding_function=None)
last = sum("long#" in one for one in collection.get(include=[])["ids"]) - 1
collection.delete(ids=[f"long#{last}"])
"""


def _long_item() -> dict[str, Any]:
    return {
        "object_id": "long",
        "payload": {"text": " ".join(f"word{each} of a text." for each in range(90)), "n": 1.1},
    }


def test_an_item_without_its_last_chunk_stays_chunks(tiny: Terminal) -> None:
    """The rest of a text never passes for the whole, in a copy, in a copy of vectors, or in an export."""
    tiny.write("a.jsonl", [_long_item(), {"object_id": "short", "payload": {"text": "short"}}])
    tiny.type("upsert-cli run a.jsonl --chroma there --collection chunks --split --max-tokens 64")
    plain_chroma(tiny, _DELETE_LAST, folder="there")
    left = {one: record["document"] for one, record in tiny.records("chunks", folder="there").items() if "long" in one}
    assert len(left) > 2
    tiny.type("upsert-cli run chroma:there#chunks --chroma kept --collection chunks --keep-vectors")
    for number, folder in enumerate(("there", "kept")):
        tiny.type(f"upsert-cli run chroma:{folder}#chunks --collection copy-{number}")
        stored = tiny.records(f"copy-{number}")
        assert {one: record["document"] for one, record in stored.items()} == left | {"short": "short"}
        done = tiny.type(f"upsert-cli export chunks - --chroma {folder}")
        assert {json.loads(line)["object_id"] for line in done.stdout.splitlines()} == left.keys() | {"short"}
        assert f"{len(left)} chunks of --split are separate items" in done.stderr


def test_an_item_that_grew_without_its_last_chunk_stays_chunks(tiny: Terminal) -> None:
    """A longer text has another last chunk, and without that the item is not whole any more, also with a mean."""
    tiny.write("a.jsonl", [_long_item()])
    load = "upsert-cli run a.jsonl --chroma there --collection chunks --split --max-tokens 64 --average"
    tiny.type(load)
    tiny.type("upsert-cli run chroma:there#chunks --collection whole")
    assert "1 unchanged" in tiny.type("upsert-cli run a.jsonl --collection whole").stderr
    tiny.write("a.jsonl", [_long_item() | {"payload": {"text": _long_item()["payload"]["text"] + " More of it." * 40}}])
    tiny.type(load)
    plain_chroma(tiny, _DELETE_LAST.replace("- 1", "- 2"), folder="there")  # the mean counts too
    tiny.type("upsert-cli run chroma:there#chunks --collection rest")
    assert "long" not in tiny.records("rest")


def test_chosen_chunks_are_divided_by_their_records(tiny: Terminal, make_items: Items) -> None:
    """Where a filter chooses the chunks of items, units cover all of them, although an item is one row."""
    items = make_items(3)
    for number, item in enumerate(items):
        item["payload"] |= {"text": " ".join(f"word{each} of text {number}." for each in range(60)), "kind": "long"}
    tiny.write("a.jsonl", items)
    tiny.type("upsert-cli run a.jsonl --chroma there --collection chunks --split --max-tokens 64")
    chroma = f"chroma:{tiny.folder / 'there'}#chunks"
    reader = replace(collection_named(chroma), where={"kind": "long"})
    rows = [row.number for row in reader.read(row=0, offset=0)]
    assert len(rows) == 3
    assert [*reader.boundaries(rows=4, size=1)][-1][0] >= rows[-1]


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["one. ", "two. ", "three."], "one. two. three."),
        (["one. two. ", "two. three."], None),
        (["aa", "ab"], None),
        (["word word ", "word word "], None),
        (["one", " two"], "one two"),
        (["one"], "one"),
        (["one", None], None),
    ],
)
def test_texts_are_joined_where_that_is_certain(texts: list[str | None], whole: str | None) -> None:
    """A chunk that begins as the one before it ends may repeat it."""
    chunks = [(number, text, {"upsert_hash": "h.m>#", "part": number}) for number, text in enumerate(texts)]
    chunks[-1][2]["upsert_hash"] = "h.m$#"
    found = joined("a", reversed(chunks))
    assert (found and found.payload) == (whole and {"text": whole})


def test_texts_are_joined_only_without_a_gap() -> None:
    """Without a chunk in the middle, the others stay chunks."""
    ends = ((0, "a", {"upsert_hash": "h.m>#"}), (2, "b", {"upsert_hash": "h.m$#"}))
    assert joined("a", ends) is None
    assert joined("a", [ends[0], (1, *ends[1][1:])]) is not None


@pytest.mark.parametrize(
    ("places", "is_whole"),
    [
        ("> > $", True),
        ("> >", False),
        ("> $ >", False),  # left by a killed load of a shorter text
        ("> $ $", False),
        ("$", True),
        (">", False),
    ],
)
def test_chunks_tell_whether_another_one_follows(places: str, is_whole: bool) -> None:
    """An item is joined if its chunk with the highest number is marked as the last, and no other is."""
    marks = places.split()
    chunks = [
        (number, f"{number}.", {"upsert_hash": f"h.m{mark}#", "part": number}) for number, mark in enumerate(marks)
    ]
    assert (joined("a", chunks) is not None) == is_whole
