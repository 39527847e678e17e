"""`--model none`: items with vectors of any dimension, which no model made; nothing is looked for, loaded or embedded."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.journal_tasks import make_task
from tests.support.other_program import plain_chroma
from tests.support.reading import sources_of
from tests.support.terminal import Terminal
from upsert_cli.cluster.worker import Spec, UnitRunner
from upsert_cli.embedding.catalog import NO_MODEL
from upsert_cli.embedding.identity import OwnVectors
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.sources.rows import plan_units
from upsert_cli.verify.verification import BLOCK_ROWS

DIMENSION = 5
MODEL_LIBRARIES = {"fastembed", "onnxruntime", "tokenizers", "huggingface_hub", "openvino"}


def _vector(number: int) -> list[float]:
    return [float(value) for value in np.random.default_rng(number).standard_normal(DIMENSION).round(3) * 10.0**number]


def _rows() -> list[dict[str, Any]]:
    """Return rows; the first three and the last have no usable vector, and one of the others has no text."""
    good: list[dict[str, Any]] = [
        {"object_id": f"id{n}", "payload": {"text": f"text {n}", "n": n, "vector": _vector(n)}} for n in range(6)
    ]
    del good[3]["payload"]["text"]
    return [
        {"object_id": "lacking", "payload": {"text": "x"}},
        {"object_id": "zeros", "payload": {"text": "x", "vector": [0, 0]}},
        {"object_id": "empty", "payload": {"text": "x", "vector": ""}},
        *good,
        {"object_id": "longer", "payload": {"text": "x", "vector": [1.5] * (DIMENSION + 1)}},
    ]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Return a terminal after a load with `--model none`, on a machine without any model."""
    terminal = Terminal(tmp_path_factory.mktemp("own"))
    terminal.env["UPSERT_CLI_MODEL_CACHE"] = str(terminal.folder / "no-models")
    terminal.write("a.jsonl", _rows())
    terminal.type("upsert-cli run a.jsonl --model none --task-id own", expect=3)
    return terminal


def test_the_first_vector_sets_the_dimension(loaded: Terminal) -> None:
    """Vectors are stored as they came; the collection names no model, and unusable rows are rejects."""
    records = loaded.records(vectors=True)
    assert records.keys() == {f"id{n}" for n in range(6)}
    for n in range(6):
        np.testing.assert_allclose(records[f"id{n}"]["vector"], _vector(n), rtol=1e-5)
        assert records[f"id{n}"]["document"] == (None if n == 3 else f"text {n}")
    described = plain_chroma(
        loaded,
        "one = client.get_collection('default')\n"
        "print(json.dumps([one.metadata, one.configuration_json['embedding_function'], one.get_model().dimension]))",
    )
    assert list(described[0]) == ["upsert_cli_version"]
    assert described[1:] == [{"type": "legacy"}, DIMENSION]
    task = loaded.info("own")
    assert task["model"] == "none"
    assert [item["object_id"] for item in task["failed_items"]] == ["lacking", "zeros", "empty", "longer"]
    details = [item["detail"] for item in task["failed_items"]]
    assert details[0] == details[2] == "payload.vector is missing, and with --model none nothing is embedded"
    assert details[3] == f"payload.vector has {DIMENSION + 1} numbers, and the collection's vectors have {DIMENSION}"
    assert not (loaded.folder / "no-models").exists()


def test_nothing_is_different(loaded: Terminal) -> None:
    """The records are verified by the sources and without them, and the same rows again change nothing."""
    for what in ("own", ""):
        outcome = json.loads(loaded.type(f"upsert-cli verify {what} --json").stdout)
        assert (outcome["ok"], outcome["records"], outcome["model"]) == (True, 6, "none")
    loaded.type("upsert-cli run a.jsonl --model NONE --task-id again", expect=3)
    counts = loaded.info("again")["counts"]
    assert {name: count for name, count in counts.items() if count} == {"read": 10, "unchanged": 6, "failed": 4}


def test_vectors_of_a_model_do_not_mix_with_others(loaded: Terminal, tiny_model: Path) -> None:
    """A model's load into such a collection is refused, and so is `--model none` into a model's; nothing is written."""
    before = loaded.records(vectors=True)
    loaded.write("b.jsonl", [{"object_id": "b", "payload": {"text": "b"}}])
    said = loaded.type(f"upsert-cli run b.jsonl --model-path {tiny_model}", expect=4).stderr
    assert "holds the vectors that its items brought (--model none)" in said
    loaded.type(f"upsert-cli run b.jsonl --model-path {tiny_model} --collection embedded")
    said = loaded.type("upsert-cli run a.jsonl --model none --collection embedded", expect=4).stderr
    assert "--model none does not say which model its vectors come from" in said
    assert loaded.records(vectors=True) == before
    assert loaded.records("embedded").keys() == {"b"}


@pytest.mark.parametrize("function", ["", "embedding_function=None"])
def test_collections_of_other_programs(terminal: Terminal, function: str) -> None:
    """Their vectors set the dimension, and the load warns; a default function that cannot have made them is ignored."""
    plain_chroma(
        terminal,
        f"made = client.create_collection('theirs', {function})\n"
        "made.add(ids=['old'], embeddings=[[1.0, 2.0]], documents=['old'])",
    )
    rows = [{"object_id": str(n), "payload": {"text": str(n), "vector": [1.0] * n}} for n in (1, 2)]
    terminal.write("a.jsonl", rows)
    said = terminal.type("upsert-cli run a.jsonl --model none --collection theirs", expect=3).stderr
    assert "only if that was the model of their vectors" in said
    assert terminal.records("theirs").keys() == {"old", "2"}


def test_a_default_function_may_have_made_the_vectors(terminal: Terminal) -> None:
    """A collection whose text queries would compare a model's vectors with others is refused."""
    plain_chroma(terminal, "client.create_collection('theirs')")
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"vector": [1, 2]}}])
    said = terminal.type("upsert-cli run a.jsonl --model none --collection theirs", expect=4).stderr
    assert "the model of Chroma's default embedding function" in said


FUNCTIONS = """
from chromadb.utils.embedding_functions import register_embedding_function
@register_embedding_function
class Theirs(chromadb.EmbeddingFunction):
    def __init__(self, model): self.model = model
    def __call__(self, input): return [[1.0, float(len(text))] for text in input]
    @staticmethod
    def name(): return "theirs"
    def get_config(self): return {"model_name": self.model}
    @staticmethod
    def build_from_config(config): return Theirs(config["model_name"])
for name, model in (("one", "a/first"), ("same", "a/first"), ("other", "a/second")):
    made = client.create_collection(name, embedding_function=Theirs(model))
    made.add(ids=[name], documents=[name])
client.create_collection("short", embedding_function=None).add(ids=["short"], embeddings=[[1.0, 2.0]])
client.create_collection("unused").add(ids=["unused"], embeddings=[[1.0, 2.0]])
"""


def test_vectors_of_two_functions_do_not_mix(terminal: Terminal) -> None:
    """Kept vectors belong to the model of their collection's function: others are refused, or cause a warning."""
    plain_chroma(terminal, FUNCTIONS)
    copy = "upsert-cli run chroma:chroma#{} --keep-vectors --collection {}"
    said = terminal.type(
        "upsert-cli run chroma:chroma#one chroma:chroma#other --keep-vectors --collection mixed", expect=2
    )
    assert "chroma#one holds vectors of a/first" in said.stderr and "chroma#other vectors of a/second" in said.stderr
    said = terminal.type(copy.format("one", "other"), expect=4)
    assert "was made with the model a/second, not a/first" in said.stderr
    assert terminal.records("other").keys() == {"other"}
    said = terminal.type(copy.format("one", "same"))
    assert "warning" not in said.stderr and terminal.records("same").keys() == {"one", "same"}
    said = terminal.type(copy.format("one", "new"))
    assert "warning" not in said.stderr
    said = terminal.type(copy.format("other", "new"))  # a collection of vectors that nothing names
    assert "does not say which model made its vectors, and the source names a/second" in said.stderr
    said = terminal.type(copy.format("one", "short"))
    assert "only if that was a/first" in said.stderr


def test_a_default_function_of_another_dimension_names_no_model(terminal: Terminal) -> None:
    """Own vectors that Chroma's function cannot have made are copied and loaded like vectors of unknown origin."""
    plain_chroma(terminal, FUNCTIONS)
    said = terminal.type("upsert-cli run chroma:chroma#unused --keep-vectors --collection copy --task-id t").stderr
    assert "upsert-cli query --vector FILE" in said and terminal.info("t")["model"] == "none"
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"vector": [1, 2]}}])
    terminal.type("upsert-cli run a.jsonl --model none --collection copy")
    said = terminal.type("upsert-cli run a.jsonl --model none --collection unused").stderr
    assert "only if that was the model of their vectors" in said
    assert "does not say which model" in terminal.type("upsert-cli query x --collection unused", expect=4).stderr


def test_no_library_of_models_is_imported(terminal: Terminal) -> None:
    """Neither the load nor its child process imports a library that embeds."""
    terminal.forks = False
    terminal.env["PYTHONPROFILEIMPORTTIME"] = "1"
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "a", "vector": [1, 2]}}])
    said = terminal.type("upsert-cli run a.jsonl --model none").stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in said.splitlines()}
    assert "numpy" in imported
    assert not imported & MODEL_LIBRARIES


def test_a_query_takes_a_vector(loaded: Terminal) -> None:
    """A vector that is typed, in a file or piped finds its record first; a text is refused, since no model is known."""
    typed = json.dumps(_vector(2))
    (loaded.folder / "v.json").write_text("\ufeff" + typed, encoding="utf-8")
    outputs = [
        loaded.type(f"upsert-cli query --vector '{typed}' -n 2 --json").stdout,
        loaded.type("upsert-cli query --vector v.json -n 2 --json").stdout,
        loaded.type("upsert-cli query --vector - -n 2 --json", stdin=typed).stdout,
    ]
    for found in map(json.loads, outputs):
        assert (found["model"], found["text"], found["records"]) == ("none", None, 6)
        assert (found["hits"][0]["id"], found["hits"][0]["distance"]) == ("id2", pytest.approx(0.0, abs=1e-6))
    said = loaded.type("upsert-cli query 'text 2'", expect=4).stderr
    assert f"`query --vector FILE` takes a vector of {DIMENSION} numbers" in said


def test_the_command_after_an_export_can_succeed(loaded: Terminal) -> None:
    """Without its vectors a collection is not loaded by `--model none`, which needs them."""
    said = loaded.type("upsert-cli export default texts.jsonl", expect=3).stderr  # one record has no document
    assert "upsert-cli run texts.jsonl\n" in said
    said = loaded.type("upsert-cli export default all.jsonl --vectors").stderr
    assert "upsert-cli run all.jsonl --model none\n" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--vector '[1, 2]'", f"has 2 numbers, and the vectors of the collection default in .* have {DIMENSION}"),
        ("--vector '[1, NaN]'", "not JSON"),
        ("--vector '[1, \"2\"]'", "is not only numbers"),
        ("--vector '[[1, 2]]'", "is not only numbers"),
        ("--vector '[1e300, 1, 1, 1, 1]'", "is not finite"),
        ("--vector '[0, 0, 0, 0, 0]'", "is all zeros"),
        ("--vector '[]'", "has no numbers"),
        ("--vector nowhere.json", "'nowhere.json' cannot be read"),
        ("--vector a.jsonl", "a.jsonl is not JSON .*a vector is a JSON list of numbers"),
        ("--vector -", "standard input"),
        ("text --vector '[1]'", "either a TEXT or a --vector"),
        ("", "either a TEXT or a --vector"),
    ],
)
def test_an_invalid_vector_is_a_usage_error(loaded: Terminal, options: str, said: str) -> None:
    """A value that cannot be a vector of the collection is named before anything is opened."""
    assert re.search(said, loaded.type(f"upsert-cli query {options}", expect=2).stderr)


def test_the_query_of_other_collections(tiny: Terminal) -> None:
    """A vector finds records that a model embedded, and another program's records, without a model."""
    tiny.write("a.jsonl", [{"object_id": str(n), "payload": {"text": f"text {n}"}} for n in range(3)])
    tiny.type("upsert-cli run a.jsonl")
    tiny.env["UPSERT_CLI_MODEL_CACHE"] = str(tiny.folder / "no-models")
    for identifier, record in tiny.records(vectors=True).items():
        found = json.loads(tiny.type(f"upsert-cli query --vector '{record['vector']}' -n 1 --json").stdout)
        assert found["hits"][0]["id"] == identifier
    plain_chroma(
        tiny, "client.create_collection('theirs', embedding_function=None).add(ids=['x'], embeddings=[[1.0, 2.0]])"
    )
    found = json.loads(tiny.type("upsert-cli query --vector '[2, 4]' --collection theirs --json").stdout)
    assert (found["model"], [hit["id"] for hit in found["hits"]]) == (None, ["x"])


def test_a_query_names_the_model_of_own_vectors(tiny: Terminal, tiny_model: Path) -> None:
    """A text finds vectors from elsewhere if the user names their model and the dimension fits."""
    tiny.write("a.jsonl", [{"object_id": str(n), "payload": {"text": f"text {n}"}} for n in range(3)])
    tiny.type("upsert-cli run a.jsonl")
    rows = [
        {"object_id": f"own-{one}", "payload": {"vector": record["vector"]}}
        for one, record in tiny.records(vectors=True).items()
    ]
    tiny.write("b.jsonl", rows)
    tiny.type("upsert-cli run b.jsonl --model none --collection own")
    line = f"upsert-cli query 'text 2' --model sentence-transformers/all-MiniLM-L6-v2 --model-path {tiny_model} -n 1 --json"
    assert json.loads(tiny.type(f"{line} --collection own").stdout)["hits"][0]["id"] == "own-2"
    tiny.write("c.jsonl", [{"object_id": "c", "payload": {"vector": [1, 2]}}])
    tiny.type("upsert-cli run c.jsonl --model none --collection short")
    assert "holds vectors of 2 numbers" in tiny.type(f"{line} --collection short", expect=4).stderr


def test_the_end_of_a_load_names_no_model(terminal: Terminal) -> None:
    """The summary and `info` show how to query by a vector, and `--split` has no tokenizer to use."""
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"vector": [1, 2]}}])
    said = terminal.type("upsert-cli run a.jsonl --model none --task-id t").stderr
    assert "the payload has no `text`, it has `vector`" in said
    assert "with the vectors of its items; to query it by the vector in FILE:" in said
    assert "upsert-cli query --vector FILE" in said
    assert "query --vector FILE" in terminal.type("upsert-cli info t").stdout
    for command in ("run", "preview"):
        said = terminal.type(f"upsert-cli {command} a.jsonl --model none --split", expect=2).stderr
        assert "--model none uses no model" in said
    assert "none is not a model" in terminal.type("upsert-cli models check --model none", expect=2).stderr
    assert (
        "payload has no `v`" in terminal.type("upsert-cli run a.jsonl --model none --vector-field v", expect=2).stderr
    )


def test_a_worker_of_a_cluster_needs_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit of a load without a model is loaded with the dimension that its task has found."""
    monkeypatch.setenv("UPSERT_CLI_MODEL_CACHE", str(tmp_path / "no-models"))
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in _rows()))
    [source] = sources_of(path)
    task = make_task(chroma=str(tmp_path / "chroma"), options=LoadOptions(), model=NO_MODEL, inputs=(source.as_json(),))
    runner = UnitRunner(Spec(task=task, origin=OwnVectors(dimension=DIMENSION)))
    runner.prepare()
    [unit] = plan_units([source])
    done = runner.run(unit)
    runner.close()
    assert done.error is None
    assert (done.counts.inserted, done.counts.failed, done.embedded) == (6, 4, 0)


def _many(count: int, *, mark: str) -> list[dict[str, Any]]:
    vectors = np.random.default_rng(len(mark)).standard_normal((count, DIMENSION)).round(3)
    return [
        {"object_id": f"{mark}-{n}", "payload": {"text": f"{mark} {n}", "vector": vector.tolist()}}
        for n, vector in enumerate(vectors)
    ]


def test_a_killed_load_continues(terminal: Terminal) -> None:
    """After kill -9 in the middle, `restart` ends with the collection of an uninterrupted load."""
    rows = _many(900, mark="killed")
    rows[0]["payload"]["vector"] = None  # so that the first vector is not in the first row
    terminal.write("a.jsonl", rows)
    terminal.type("upsert-cli run a.jsonl --model none --collection whole", expect=3)
    process = terminal.start("upsert-cli run a.jsonl --model none --task-id t --batch-size 50")
    terminal.halt_when(process, "t")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert terminal.info("t")["counts"]["read"] < 900
    terminal.type("upsert-cli restart t", expect=3)
    assert terminal.records(vectors=True) == terminal.records("whole", vectors=True)
    counts = terminal.info("t")["counts"]
    assert counts["inserted"] + counts["unchanged"] == 899  # written before the kill and not yet committed


def test_rows_come_and_go(terminal: Terminal) -> None:
    """Rejects are retried, changed vectors written, lost texts taken away, and missing items deleted, by a worker too."""
    rows = _many(4, mark="row")
    terminal.write("a.jsonl", [*rows, {"object_id": "late", "payload": {"text": "late", "vector": [1.0]}}])
    terminal.type("upsert-cli run a.jsonl --model none --task-id t --enqueue --scope s")
    terminal.type("upsert-cli work --once", expect=None)
    assert terminal.info("t")["counts"]["failed"] == 1
    terminal.type("upsert-cli restart t --failed-only", expect=3)
    changed = [
        *json.loads(json.dumps(rows[:3])),
        {"object_id": "late", "payload": {"text": "x", "vector": [2.0] * DIMENSION}},
    ]
    del changed[0]["payload"]["text"]
    changed[1]["payload"]["vector"] = [3.0] * DIMENSION
    terminal.write("b.jsonl", changed)
    terminal.type("upsert-cli run b.jsonl --model none --task-id u --scope s --delete-missing --max-delete 1 --verify")
    counts = terminal.info("u")["counts"]
    assert {name: count for name, count in counts.items() if count} == {
        "read": 4, "inserted": 1, "updated": 2, "unchanged": 1, "deleted": 1,
    }  # fmt: skip
    records = terminal.records(vectors=True)
    assert records.keys() == {"row-0", "row-1", "row-2", "late"}
    assert not records["row-0"]["document"]
    np.testing.assert_allclose(records["row-1"]["vector"], [3.0] * DIMENSION, rtol=1e-6)


@pytest.mark.parametrize(("damage", "rows"), [("lost", BLOCK_ROWS), ("cut", 100)])
def test_a_damaged_index_is_rebuilt_from_the_sources(terminal: Terminal, damage: str, rows: int) -> None:
    """Only the sources have the vectors: a repair reads those of each task, and is refused without a task."""
    terminal.write("a.jsonl", _many(rows + 20, mark="first"))
    terminal.write("b.jsonl", _many(rows + 10, mark="second"))
    for name in "ab":
        terminal.type(f"upsert-cli run {name}.jsonl --model none --task-id {name}")
    before = terminal.records(vectors=True)
    [index] = [path.parent for path in terminal.folder.glob("chroma/*/data_level0.bin")]
    if damage == "lost":
        shutil.rmtree(index)
    else:
        os.truncate(index / "data_level0.bin", 1000)
    said = terminal.type("upsert-cli verify --repair", expect=4).stderr
    assert "`upsert-cli verify --repair b`" in said  # the newest task
    said = terminal.type("upsert-cli verify --repair a", expect=3).stderr
    [unreadable] = re.findall(r"0 missing, ([\d,]+) unreadable", said)
    assert rows <= int(unreadable.replace(",", "")) <= rows + 10  # those that the other task loaded
    assert "upsert-cli verify --repair b\n" in said and "--repair a" not in said
    outcome = json.loads(terminal.type("upsert-cli verify --repair b --json").stdout)
    assert (outcome["ok"], outcome["records"], outcome["repaired"]["aside"]) == (True, 2 * rows + 30, [])
    after = terminal.records(vectors=True)
    assert after.keys() == before.keys()
    for one, record in before.items():
        np.testing.assert_allclose(after[one].pop("vector"), record.pop("vector"), rtol=1e-5)
    assert after == before
