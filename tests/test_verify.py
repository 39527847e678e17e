"""`verify` finds every fault of a collection; `--repair` corrects it from the sources or from the stored documents."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from tests.support.items import Items
from tests.support.loading import a_target
from tests.support.other_program import plain_chroma
from tests.support.records import assert_same
from tests.support.terminal import Terminal
from tests.support.tiny_model import unloadable_model
from upsert_cli.store.locate import location_of

ROWS = 300
REPAIR = "upsert-cli verify --repair --json"
FILES = ["header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle"]


@pytest.fixture(scope="module")
def loaded_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with items, a journal and their collection, to be copied."""
    terminal = Terminal(tmp_path_factory.mktemp("loaded"), {"UPSERT_CLI_RUN_MODEL_PATH": str(tiny_model)})
    items = [
        {
            "object_id": f"obj-{number:05d}",
            "payload": {"text": f"text {number} " + "and more of it " * (number % 7), "number": number, "zero": -0.0},
        }
        for number in range(ROWS)
    ]
    terminal.write("a.jsonl", items)
    terminal.type("upsert-cli run a.jsonl --task-id load")
    return terminal.folder


@pytest.fixture
def loaded(loaded_folder: Path, tiny: Terminal, tiny_model: Path) -> Terminal:
    """Return a terminal whose collection holds the loaded items, but which lacks their sources."""
    for name in ("chroma", "journal"):
        shutil.copytree(loaded_folder / name, tiny.folder / name)
    tiny.env["UPSERT_CLI_VERIFY_MODEL_PATH"] = str(tiny_model)
    return tiny


@pytest.fixture
def fresh(tiny: Terminal, tiny_model: Path, make_items: Items) -> Terminal:
    """Return a terminal with its own load, the task `load` of `a.jsonl`."""
    tiny.env["UPSERT_CLI_VERIFY_MODEL_PATH"] = str(tiny_model)
    tiny.write("a.jsonl", make_items(40))
    tiny.type("upsert-cli run a.jsonl --task-id load")
    return tiny


def _outcome(terminal: Terminal, line: str, *, expect: int = 0) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(terminal.type(line, expect=expect).stdout)
    return value


def _plain(terminal: Terminal, code: str) -> None:
    """Run lines of plain chromadb on the collection, in another process."""
    plain_chroma(terminal, f"import math\ncollection = client.get_collection('default')\n{code}")


def _index(terminal: Terminal) -> Path:
    (header,) = (terminal.folder / "chroma").glob("*/header.bin")
    return header.parent


def _counts(outcome: dict[str, Any]) -> dict[str, int]:
    return {kind: outcome[kind]["count"] for kind in ("missing", "unreadable", "different", "unreachable")}


def _ids(outcome: dict[str, Any], kind: str) -> list[str]:
    return [one["id"] for one in outcome[kind]["first"]]


GOOD = {"missing": 0, "unreadable": 0, "different": 0, "unreachable": 0}


# -- all well ------------------------------------------------------------------------------------------------------


def test_a_load_is_good(fresh: Terminal) -> None:
    """A good load is verified by its task and by its collection, and nothing is changed."""
    before = fresh.records(vectors=True)
    by_task = _outcome(fresh, "upsert-cli verify load --json")
    assert by_task["ok"]
    assert (by_task["records"], by_task["rows"], by_task["asked"]) == (40, 40, 40)
    by_collection = _outcome(fresh, "upsert-cli verify --json")
    assert by_collection["ok"]
    assert _counts(by_task) == _counts(by_collection) == GOOD
    assert fresh.records(vectors=True) == before
    assert fresh.type("upsert-cli verify load -q").stderr == ""


def test_verify_after_the_load(tiny: Terminal, make_items: Items) -> None:
    """`run --verify` reads everything back in the same command, rejects included, and the summary is the last line."""
    broken = {"object_id": "broken", "payload": {"text": ""}}
    tiny.write("a.jsonl", [*make_items(20), broken])
    lines = tiny.type("upsert-cli run a.jsonl --verify --json", expect=3).stdout.splitlines()
    events = [json.loads(line) for line in lines]
    (verified,) = [event for event in events if event["type"] == "verification"]
    assert verified["ok"]
    assert verified["records"] == 20
    assert verified["rows"] == 21
    assert events[-1]["type"] == "summary"
    assert events[-1]["exit_code"] == 3
    tiny.write("b.jsonl", make_items(20))
    assert "20 records read back" in tiny.type("upsert-cli run b.jsonl --verify").stderr


def test_the_last_of_repeated_ids_is_expected(fresh: Terminal, make_items: Items) -> None:
    """A row whose id is repeated in a later batch is not reported as different."""
    items = make_items(700)
    again = items[0] | {"payload": {"text": "another text"}}
    back = items[1] | {"payload": {"text": "for a while"}}
    fresh.write("b.jsonl", [back, *items, again])
    fresh.type("upsert-cli run b.jsonl --task-id repeated")
    assert _outcome(fresh, "upsert-cli verify repeated --json")["ok"]
    # Compared with the first task's file, only the row that was replaced since is different.
    outcome = _outcome(fresh, "upsert-cli verify load --json", expect=3)
    assert _ids(outcome, "different") == [items[0]["object_id"]]


def test_records_of_an_older_version_lose_the_repeated_text(fresh: Terminal, tiny_model: Path) -> None:
    """Metadata that repeats the text, as an older version wrote it, is named by `verify`; every way to write it again embeds nothing."""
    once = fresh.records(vectors=True)
    older = "upsert-cli run a.jsonl --metadata-fields text,number"
    fresh.type(older)
    assert all(record["metadata"]["text"] == record["document"] for record in fresh.records().values())
    unloadable = unloadable_model(tiny_model, fresh.folder / "unloadable")
    fresh.env |= {f"UPSERT_CLI_{command}_MODEL_PATH": str(unloadable) for command in ("RUN", "VERIFY")}
    outcome = _outcome(fresh, "upsert-cli verify load --json", expect=3)
    assert _counts(outcome) == GOOD | {"different": 40}
    assert outcome["different"]["first"][0]["detail"].endswith("a.jsonl:1 has other metadata")
    for again in ("verify load --repair", "run a.jsonl --task-id again", "restart load --from-start"):
        fresh.type(f"upsert-cli {again}")
        assert fresh.records(vectors=True) == once
        fresh.type(older)
    assert fresh.info("again")["counts"]["updated"] == 40


@pytest.mark.parametrize("line", ["upsert-cli verify", "upsert-cli verify --collection other"])
def test_no_collection(terminal: Terminal, line: str) -> None:
    """A collection that does not exist cannot be read, and is not created."""
    assert "there is no collection" in terminal.type(line, expect=1).stderr
    assert not (terminal.folder / "chroma").exists()


def test_a_source_that_changed_is_refused(fresh: Terminal, make_items: Items) -> None:
    """A task is compared with the file that it loaded, never with another one."""
    fresh.write("a.jsonl", make_items(41))
    assert "changed" in fresh.type("upsert-cli verify load", expect=4).stderr


# -- a damaged index ----------------------------------------------------------------------------------------------


def _removed(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def _to_file(name: str, how: Callable[[Path], None]) -> Callable[[Path], None]:
    return lambda index: how(index / name)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "folder removed": shutil.rmtree,
    **{
        f"{name} {how.__name__[1:]}": _to_file(name, how)
        for name in FILES
        for how in (_removed, _cut, _zeroed, _garbage)
    },
}
# Each takes a dozen processes, so only those that differ most are run every time.
QUICK = {
    "folder removed",
    "data_level0.bin cut",
    "data_level0.bin zeroed",
    "link_lists.bin zeroed",
    "index_metadata.pickle removed",
}


@pytest.mark.parametrize(
    "damage", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in DAMAGES]
)
def test_a_damaged_index_is_found_and_rebuilt(loaded_folder: Path, loaded: Terminal, damage: str) -> None:
    """Index files that were cut, zeroed or removed are found, also by `run`, and rebuilt without the source."""
    before = Terminal(loaded_folder).records(vectors=True)
    index = _index(loaded)
    DAMAGES[damage](index)
    found = loaded.type("upsert-cli verify", expect=None)
    assert found.returncode in (1, 3)
    assert "upsert-cli verify --repair" in found.stderr
    assert "Traceback" not in found.stderr
    loaded.write("b.jsonl", [{"object_id": "b", "payload": {"text": "b"}}])
    refused = loaded.type("upsert-cli run b.jsonl", expect=1)
    assert "upsert-cli verify --repair" in refused.stderr
    outcome = _outcome(loaded, REPAIR)
    assert outcome["ok"]
    assert outcome["records"] == ROWS
    aside = outcome["repaired"]["aside"]
    assert bool(aside) == (damage != "folder removed")
    assert all((index.parent / name).is_dir() for name in aside)
    after = loaded.records(vectors=True)
    assert after.keys() == before.keys()
    for one, record in before.items():
        assert after[one]["document"] == record["document"]
        assert after[one]["metadata"] == record["metadata"]
        np.testing.assert_allclose(after[one]["vector"], record["vector"], atol=1e-5)
    loaded.type("upsert-cli run b.jsonl")


POISONS = {
    "NaN in a list": "{'a': [math.nan]}",
    "too many keys": "{f'key {number}': number for number in range(5_500)}",
    "too long a list": "{'a': list(range(6_000))}",
}


@pytest.mark.parametrize(
    "poison", [*list(POISONS)[:1], *(pytest.param(one, marks=pytest.mark.slow) for one in list(POISONS)[1:])]
)
def test_a_poisoned_queue_is_repaired(loaded: Terminal, poison: str) -> None:
    """A row that blocks Chroma's queue for good is removed; the rows after it are stored, and nothing is lost."""
    before = loaded.records(vectors=True)
    _plain(
        loaded,
        "vector = [[1.0] * 384]\n"
        f"try:\n    collection.upsert(ids=['poison'], embeddings=vector, metadatas=[{POISONS[poison]}])\n"
        "except Exception as error:\n    assert 'compaction' in str(error)\nelse:\n    sys.exit(1)\n",
    )
    assert "damaged" in loaded.type("upsert-cli verify", expect=1).stderr
    loaded.write("b.jsonl", [{"object_id": "b", "payload": {"text": "b"}}])
    assert "upsert-cli verify --repair" in loaded.type("upsert-cli run b.jsonl", expect=1).stderr
    outcome = _outcome(loaded, REPAIR)
    assert outcome["repaired"]["removed"] == ["poison"]
    assert outcome["repaired"]["aside"] == []
    assert outcome["repaired"]["written"] == 0
    assert loaded.records(vectors=True) == before


def test_a_repair_without_the_model_changes_nothing(loaded: Terminal) -> None:
    """Without the model no vector could be made again, so the damaged index is left alone."""
    _zeroed(_index(loaded) / "data_level0.bin")
    before = sorted(path.name for path in (loaded.folder / "chroma").iterdir())
    empty = loaded.folder / "empty"
    empty.mkdir()
    loaded.type(f"upsert-cli verify --repair --model-path {empty}", expect=1)
    assert sorted(path.name for path in (loaded.folder / "chroma").iterdir()) == before


# -- rows that are wrong ------------------------------------------------------------------------------------------


def test_a_deleted_record_is_missing(fresh: Terminal) -> None:
    """A record that another program deleted is reported as missing, and loaded again from its source."""
    before = fresh.records(vectors=True)
    _plain(fresh, "collection.delete(ids=['obj-00007'])")
    outcome = _outcome(fresh, "upsert-cli verify load --json", expect=3)
    assert _counts(outcome) == GOOD | {"missing": 1}
    assert _ids(outcome, "missing") == ["obj-00007"]
    assert "a.jsonl:8" in outcome["missing"]["first"][0]["detail"]
    assert "obj-00007" in fresh.type("upsert-cli verify load", expect=3).stdout
    repaired = _outcome(fresh, "upsert-cli verify load --repair --json")
    assert repaired["ok"]
    assert repaired["repaired"]["written"] == 1
    assert_same(fresh.records(vectors=True), before)


@pytest.mark.parametrize(
    "change",
    [
        "collection.update(ids=['obj-00007'], documents=['changed'], embeddings=[[1.0] * 384])",
        "collection.update(ids=['obj-00007'], metadatas=[{'number': 8}])",
        "collection.update(ids=['obj-00007'], metadatas=[{'upsert_hash': None}])",
        "collection.update(ids=['obj-00007'], metadatas=[{'more': True}])",
    ],
)
def test_a_changed_record_is_different(fresh: Terminal, change: str) -> None:
    """A record that another program changed is different, with and without its source, and is restored."""
    before = fresh.records(vectors=True)
    _plain(fresh, change)
    outcome = _outcome(fresh, "upsert-cli verify --json", expect=3)
    assert _counts(outcome) == GOOD | {"different": 1}
    assert _ids(outcome, "different") == ["obj-00007"]
    repaired = _outcome(fresh, "upsert-cli verify load --repair --json")
    assert repaired["ok"]
    assert _counts(repaired["repaired"]["before"]) == GOOD | {"different": 1}
    assert_same(fresh.records(vectors=True), before)


def test_without_the_source_a_changed_document_is_embedded_as_it_is(fresh: Terminal) -> None:
    """Without a task, a document that another program changed is kept, and gets a vector that fits it."""
    _plain(fresh, "collection.update(ids=['obj-00007'], documents=['changed'], embeddings=[[1.0] * 384])")
    assert _outcome(fresh, REPAIR)["repaired"]["written"] == 1
    fresh.write("b.jsonl", [{"object_id": "same", "payload": {"text": "changed"}}])
    fresh.type("upsert-cli run b.jsonl")
    records = fresh.records(vectors=True)
    np.testing.assert_allclose(records["obj-00007"]["vector"], records["same"]["vector"], atol=1e-5)
    assert records["obj-00007"]["document"] == "changed"
    assert records["obj-00007"]["metadata"]["number"] == 7


def test_a_vector_of_zeros_is_unreadable(fresh: Terminal) -> None:
    """A record with a vector of zeros is found although Chroma lists it, and gets its vector back."""
    before = fresh.records(vectors=True)
    _plain(fresh, "collection.update(ids=['obj-00007'], embeddings=[[0.0] * 384])")
    outcome = _outcome(fresh, "upsert-cli verify --json", expect=3)
    assert _ids(outcome, "unreadable") == ["obj-00007"]
    assert _outcome(fresh, REPAIR)["ok"]
    assert_same(fresh.records(vectors=True), before)


def test_records_whose_vectors_are_gone_are_unreadable(fresh: Terminal) -> None:
    """Records that the index has lost are found one by one among the others, and only these are written again."""
    before = fresh.records(vectors=True)
    kept = sorted(before)[::2] + sorted(before)[1:13:2]
    target = a_target(fresh.folder)
    location_of(target).put_index_aside()
    (fresh.folder / "kept.json").write_text(json.dumps([kept, [before[one]["vector"] for one in kept]]))
    _plain(fresh, "ids, vectors = json.load(open('kept.json'))\ncollection.upsert(ids, vectors)\n")
    outcome = _outcome(fresh, REPAIR)
    assert _counts(outcome["repaired"]["before"]) == GOOD | {"unreadable": len(before) - len(kept)}
    assert outcome["repaired"]["written"] == len(before) - len(kept)
    assert outcome["repaired"]["aside"] == []
    assert outcome["ok"]
    assert_same(fresh.records(vectors=True), before)


def test_records_that_no_query_finds_are_all_restored(tiny: Terminal, tiny_model: Path) -> None:
    """If a sample shows dropped records in the index, a repair checks every record, also outside the sample."""
    rows, lost = 500, 6
    tiny.env["UPSERT_CLI_VERIFY_MODEL_PATH"] = str(tiny_model)
    choose = Random(rows)
    texts = [" ".join(map(str, choose.sample(range(10_000), 9))) for _ in range(rows)]
    tiny.write(
        "a.jsonl", [{"object_id": f"obj-{number:05d}", "payload": {"text": text}} for number, text in enumerate(texts)]
    )
    # Batches of one size make the same index each time; with some others, the lost links cut off one more record.
    tiny.type("upsert-cli run a.jsonl --task-id load --batch-size 128")
    before = tiny.records(vectors=True)
    _unlink(_index(tiny), lost)
    outcome = _outcome(tiny, "upsert-cli verify load --json", expect=3)
    sampled = outcome["unreachable"]["count"]
    assert 0 < sampled < lost
    repaired = _outcome(tiny, "upsert-cli verify load --repair --json")
    assert repaired["ok"]
    assert repaired["repaired"]["written"] == lost
    assert _counts(repaired["repaired"]["before"]) == GOOD | {"unreachable": sampled}
    assert_same(tiny.records(vectors=True), before)


def _unlink(index: Path, count: int) -> None:
    """Remove the links to `count` consecutive records from an index, so that no search finds them."""
    header = struct.unpack_from("<iQQQQQQiI", (index / "header.bin").read_bytes())
    rows, row_bytes, label_at, entry = header[3], header[4], header[5], header[8]
    upper, place = (index / "link_lists.bin").read_bytes(), 0
    data = bytearray((index / "data_level0.bin").read_bytes())
    numbers, is_low = [0] * rows, [False] * rows  # by label, which counts the records in their order
    for number in range(rows):
        (label,) = struct.unpack_from("<Q", data, number * row_bytes + label_at)
        length = int.from_bytes(upper[place : place + 4], "little")
        numbers[label - 1], is_low[label - 1] = number, length == 0 and number != entry
        place += 4 + length
    start = next(first for first in range(rows // 2, rows) if all(is_low[first : first + count]))
    lost = set(numbers[start : start + count])
    for begin in range(0, rows * row_bytes, row_bytes):
        links = struct.unpack_from(f"<{int.from_bytes(data[begin : begin + 2], 'little')}I", data, begin + 4)
        kept = [link for link in links if link not in lost]
        struct.pack_into(f"<H2x{len(kept)}I", data, begin, len(kept), *kept)
    (index / "data_level0.bin").write_bytes(data)


def test_a_collection_of_another_program_is_checked(fresh: Terminal) -> None:
    """A collection of another program is checked as far as its expected content is known."""
    _plain(
        fresh,
        "other = client.create_collection('other', embedding_function=None)\n"
        "other.add(ids=['a', 'b'], embeddings=[[1.0, 2.0], [3.0, 1.0]])\n"
        "other.update(ids=['b'], embeddings=[[0.0, 0.0]])\n",
    )
    outcome = _outcome(fresh, "upsert-cli verify --collection other --json", expect=3)
    assert outcome["records"] == 2
    assert _ids(outcome, "unreadable") == ["b"]
    refused = _outcome(fresh, f"{REPAIR} --collection other", expect=4)
    assert "which model" in refused["error"]


# -- an index that is older than the records ----------------------------------------------------------------------------


CHANGES = {
    "rows at the end": "",
    "rows in the middle": "collection.upsert(['late'], [[0.5] * 384], documents=['late'])",
    "as many rows as were deleted": "",
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_index_that_is_older_than_its_records_is_found(fresh: Terminal, make_items: Items, change: str) -> None:
    """With index files from before a load every command fails, `verify` names the rows, and a repair restores them."""
    fresh.env["UPSERT_CLI_QUERY_MODEL_PATH"] = fresh.env["UPSERT_CLI_RUN_MODEL_PATH"]
    older = shutil.copytree(_index(fresh), fresh.folder / "older")
    if change == "as many rows as were deleted":
        _plain(fresh, "collection.delete([f'obj-{number:05d}' for number in range(20)])")
    fresh.write("a.jsonl", make_items(60)[20:])
    fresh.type("upsert-cli run a.jsonl --task-id more")
    shutil.copytree(older, _index(fresh), dirs_exist_ok=True)
    _plain(fresh, CHANGES[change])
    for line in ("run a.jsonl", "run a.jsonl --dry-run", "query hello"):
        errors = fresh.type(f"upsert-cli {line}", expect=1).stderr
        assert "lacks 20 of" in errors
        assert "verify --repair" in errors
    assert _counts(_outcome(fresh, "upsert-cli verify more --json", expect=3))["unreadable"] == 20
    outcome = _outcome(fresh, "upsert-cli verify more --repair --json", expect=0)
    assert outcome["repaired"]["written"] >= 20
    assert outcome["unreadable"]["count"] == 0
    fresh.type("upsert-cli run a.jsonl")


@pytest.mark.parametrize(
    "values", [[0.00019991099999927542], [1e308, -0.0, 5e-324], [1 / 7 * number for number in range(40)]]
)
def test_floats_that_chroma_rounds_are_not_different(fresh: Terminal, values: list[float]) -> None:
    """Floats that come back with another last bit, alone or in a list, count as unchanged for `verify` and for a load."""
    payload = {"text": "hello", "first": values[0], "all": values, "in": {"deep": values[-1]}}
    fresh.write("floats.jsonl", [{"object_id": "a", "payload": payload}])
    fresh.type("upsert-cli run floats.jsonl --task-id floats --keep-lists --verify")
    assert _outcome(fresh, "upsert-cli verify floats --repair --json")["repaired"]["written"] == 0
    assert "1 unchanged" in fresh.type("upsert-cli run floats.jsonl --keep-lists").stderr
    _plain(fresh, f"collection.update(['a'], metadatas=[{{'first': {values[0] * 0.9999 + 1e-3!r}}}])")
    assert _ids(_outcome(fresh, "upsert-cli verify --json", expect=3), "different") == ["a"]
    _outcome(fresh, "upsert-cli verify floats --repair --json")
