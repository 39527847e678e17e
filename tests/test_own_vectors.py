"""`--model none`: items with vectors of any dimension, which no model made; nothing is looked for, loaded or embedded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.forked import run_python
from tests.support.terminal import Terminal

DIMENSION = 5
MODEL_LIBRARIES = {"fastembed", "onnxruntime", "tokenizers", "huggingface_hub", "openvino"}


def _vector(number: int) -> list[float]:
    return [float(value) for value in np.random.default_rng(number).standard_normal(DIMENSION).round(3) * 10.0**number]


def _rows() -> list[dict[str, Any]]:
    """Return rows of which the first two and the last have no usable vector, and one of the others has no text."""
    good: list[dict[str, Any]] = [
        {"object_id": f"id{n}", "payload": {"text": f"text {n}", "n": n, "vector": _vector(n)}} for n in range(6)
    ]
    del good[3]["payload"]["text"]
    return [
        {"object_id": "lacking", "payload": {"text": "x"}},
        {"object_id": "zeros", "payload": {"text": "x", "vector": [0, 0]}},
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


def _plain(terminal: Terminal, code: str) -> Any:
    """Run plain chromadb, in a process of its own, and return the JSON that it prints."""
    start = "import json, chromadb\nclient = chromadb.PersistentClient('chroma')\n"
    done = run_python([sys.executable, "-c", start + code], folder=terminal.folder, environment=terminal.environment)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout or b"null")


def test_the_first_vector_sets_the_dimension(loaded: Terminal) -> None:
    """Vectors are stored as they came; the collection names no model, and unusable rows are rejects."""
    records = loaded.records(vectors=True)
    assert records.keys() == {f"id{n}" for n in range(6)}
    for n in range(6):
        np.testing.assert_allclose(records[f"id{n}"]["vector"], _vector(n), rtol=1e-5)
        assert records[f"id{n}"]["document"] == (None if n == 3 else f"text {n}")
    described = _plain(
        loaded,
        "one = client.get_collection('default')\n"
        "print(json.dumps([one.metadata, one.configuration_json['embedding_function'], one.get_model().dimension]))",
    )
    assert list(described[0]) == ["upsert_cli_version"]
    assert described[1:] == [{"type": "legacy"}, DIMENSION]
    task = loaded.info("own")
    assert task["model"] == "none"
    assert [item["object_id"] for item in task["failed_items"]] == ["lacking", "zeros", "longer"]
    details = [item["detail"] for item in task["failed_items"]]
    assert details[0] == "payload.vector is missing, and with --model none nothing is embedded"
    assert details[2] == f"payload.vector has {DIMENSION + 1} numbers, and the collection's vectors have {DIMENSION}"
    assert not (loaded.folder / "no-models").exists()


def test_nothing_is_different(loaded: Terminal) -> None:
    """The records are verified by the sources and without them, and the same rows again change nothing."""
    for what in ("own", ""):
        outcome = json.loads(loaded.type(f"upsert-cli verify {what} --json").stdout)
        assert (outcome["ok"], outcome["records"], outcome["model"]) == (True, 6, "none")
    loaded.type("upsert-cli run a.jsonl --model NONE --task-id again", expect=3)
    counts = loaded.info("again")["counts"]
    assert {name: count for name, count in counts.items() if count} == {"read": 9, "unchanged": 6, "failed": 3}


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
    _plain(
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
    _plain(terminal, "client.create_collection('theirs')")
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"vector": [1, 2]}}])
    said = terminal.type("upsert-cli run a.jsonl --model none --collection theirs", expect=4).stderr
    assert "the model of Chroma's default embedding function" in said


def test_no_library_of_models_is_imported(terminal: Terminal) -> None:
    """Neither the load nor its child process imports a library that embeds."""
    terminal.forks = False
    terminal.env["PYTHONPROFILEIMPORTTIME"] = "1"
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "a", "vector": [1, 2]}}])
    said = terminal.type("upsert-cli run a.jsonl --model none").stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in said.splitlines()}
    assert "numpy" in imported
    assert not imported & MODEL_LIBRARIES
