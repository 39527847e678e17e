"""Models of one's own, and collections that name no model, from the command line."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.other_program import plain_chroma
from tests.support.terminal import Terminal

MINE = "my-org/my-model"
LOAD = f"upsert-cli run a.jsonl --model {MINE} --model-path mine"


@pytest.fixture
def own(terminal: Terminal, tiny_model: Path) -> Terminal:
    """Return a terminal with a model of one's own, whose files name its pooling, and two items."""
    folder = shutil.copytree(tiny_model, terminal.folder / "mine")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    listed = [("Transformer", ""), ("Pooling", "1_Pooling")]
    modules = [{"type": f"sentence_transformers.models.{name}", "path": path} for name, path in listed]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "find: "}}')
    terminal.write("a.jsonl", [{"object_id": name, "payload": {"text": f"text {name}"}} for name in ("a", "b")])
    return terminal


def _stamp(terminal: Terminal) -> dict[str, Any]:
    """Return the metadata of the collection."""
    stamp: dict[str, Any] = plain_chroma(terminal, "print(json.dumps(client.get_collection('default').metadata))")
    return stamp


def test_a_model_of_ones_own_loads_and_answers(own: Terminal) -> None:
    """The collection remembers the pooling, so `query`, `verify` and `restart` need the folder alone."""
    own.type(f"{LOAD} --task-id t")
    stamp = _stamp(own)
    assert (stamp["upsert_cli_model"], stamp["upsert_cli_pooling"]) == (MINE, "cls")
    assert stamp["upsert_cli_query_prefix"] == "find: "
    said = own.type("upsert-cli query 'text a'", expect=2).stderr
    assert f"fastembed has no text model named '{MINE}'" in said and "--model-path" in said
    [first, _] = json.loads(own.type("upsert-cli query 'text a' --model-path mine --json").stdout)["hits"]
    assert first["id"] == "a"
    own.type("upsert-cli verify t")
    own.type("upsert-cli verify --model-path mine --repair")
    own.type("upsert-cli restart t --from-start")
    assert own.info("t")["counts"]["unchanged"] == 2
    own.write("b.jsonl", [{"object_id": "b", "payload": {"text": "enqueued"}}])
    own.type(f"{LOAD.replace('a.jsonl', 'b.jsonl')} --enqueue")
    own.type("upsert-cli work")
    assert own.records()["b"]["document"] == "enqueued"


def test_kept_vectors_of_a_model_need_its_files_for_a_query_alone(own: Terminal) -> None:
    """The printed query has a placeholder for the folder, and records are repaired from the source without it."""
    own.type(f"{LOAD} --chroma there")
    said = own.type("upsert-cli run chroma:there#default --keep-vectors --task-id t").stderr
    [printed] = [line.strip() for line in said.splitlines() if line.strip().startswith("upsert-cli query")]
    assert "--model-path DIR" in printed and "in DIR:" in said
    assert "--model-path DIR" in own.type("upsert-cli info t").stdout
    found = json.loads(own.type(f"{printed.replace('DIR', 'mine')} --json").stdout)
    assert len(found["hits"]) == 2
    before = own.records(vectors=True)
    plain_chroma(own, "client.get_collection('default').delete(ids=['a'])")
    own.type("upsert-cli verify t --repair")
    assert own.records(vectors=True) == before
    own.env["UPSERT_CLI_QUERY_MODEL_PATH"] = str(own.folder / "mine")
    assert "--model-path" not in own.type("upsert-cli info t").stdout


def test_the_model_of_a_task_may_have_moved(own: Terminal) -> None:
    """`verify` takes another folder for it, with or without a task."""
    own.type(f"{LOAD} --task-id t")
    (own.folder / "mine").rename(own.folder / "moved")
    plain_chroma(own, "client.get_collection('default').delete(ids=['b'])")
    assert "mine" in own.type("upsert-cli verify t --repair", expect=1).stderr
    own.type("upsert-cli verify t --repair --model-path moved")
    assert set(own.records()) == {"a", "b"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (f"--model {MINE} --model-path mine --pooling mean", "the pooling cls, not mean"),
        ("--model my-org/other --model-path mine", f"the model {MINE}, not my-org/other"),
    ],
)
def test_another_pooling_or_name_is_refused(own: Terminal, options: str, says: str) -> None:
    """Vectors that cannot be compared stay apart: nothing is written, and a query is refused too."""
    own.type(LOAD)
    own.write("b.jsonl", [{"object_id": "c", "payload": {"text": "c"}}])
    assert says in own.type(f"upsert-cli run b.jsonl {options}", expect=4).stderr
    assert set(own.records()) == {"a", "b"}
    own.type(f"upsert-cli query x {options}", expect=4)


@pytest.mark.parametrize("vectors", ["", "--vectors"])
def test_the_command_after_an_export_takes_the_same_model(own: Terminal, vectors: str) -> None:
    """The printed command has the collection's prefixes, and says that the model needs a folder."""
    own.type(LOAD)
    said = own.type(f"upsert-cli export default out.jsonl {vectors}").stderr
    label, _, command = said.splitlines()[-1].partition(": ")
    assert label.strip() == "to load it, add --model-path, --collection and --chroma"
    assert command == f"upsert-cli run out.jsonl --model {MINE} --passage-prefix '' --query-prefix 'find: '"
    own.type(f"{command} --model-path mine")
    own.type(f"{LOAD} --passage-prefix '' --query-prefix '' --collection bare")
    said = own.type("upsert-cli export bare bare.jsonl").stderr
    own.type(f"{said.splitlines()[-1].partition(': ')[2]} --model-path mine --collection bare")


def test_the_letters_case_of_a_name_is_not_compared(own: Terminal) -> None:
    """A model is the same under a name in other letters, and its records are unchanged."""
    own.type(f"{LOAD} --task-id t")
    for line in (f"{LOAD} --task-id t", f"{LOAD} --task-id u"):
        own.type(line.replace(MINE, "My-Org/MY-model"))
    assert own.info("u")["counts"]["unchanged"] == 2
    own.write("a.jsonl", [{"object_id": "c", "payload": {"text": "text c"}}])
    own.type(f"{LOAD.replace(MINE, 'MY-ORG/my-model')} --task-id v")
    for line in ("verify v", "verify", "query 'text c' --model MY-org/my-model --model-path mine"):
        own.type(f"upsert-cli {line}")
    [listed] = json.loads(own.type("upsert-cli collections --json").stdout)
    assert (listed["model"], listed["task"]["id"]) == (MINE, "v")


def test_a_prompt_that_the_pooling_leaves_out_is_refused(own: Terminal) -> None:
    """The load stops before it writes, and its message has the options that go without prompts."""
    settings = '{"pooling_mode_mean_tokens": true, "include_prompt": false}'
    (own.folder / "mine" / "1_Pooling" / "config.json").write_text(settings)
    said = own.type(f"{LOAD} --task-id t", expect=2).stderr
    assert "include_prompt: false" in said and not (own.folder / "chroma").exists()
    own.type(f"{LOAD} --passage-prefix '' --query-prefix ''")
    own.type("upsert-cli query 'text a' --model-path mine")


def test_pooling_is_part_of_a_task(own: Terminal) -> None:
    """The same id with another pooling is another load; --pooling needs the folder that it describes."""
    own.type(f"{LOAD} --task-id t")
    assert "--pooling" in own.type(f"{LOAD} --task-id t --pooling mean", expect=4).stderr
    for command in ("run a.jsonl", "preview a.jsonl", "models check", "query x"):
        assert "go with --model-path" in own.type(f"upsert-cli {command} --pooling cls", expect=2).stderr
    shown = json.loads(own.type(f"upsert-cli models check --model {MINE} --model-path mine --json").stdout)
    assert (shown["name"], shown["pooling"], shown["graph"]) == (MINE, "cls", "model.onnx")
    previewed = own.type(f"upsert-cli preview a.jsonl --model {MINE} --model-path mine --json").stdout
    hashes = [json.loads(line)["metadata"]["upsert_hash"] for line in previewed.splitlines()]
    assert set(hashes) == {record["metadata"]["upsert_hash"] for record in own.records().values()}


@pytest.mark.parametrize("records", [0, 1])
def test_a_collection_that_names_no_model_is_queried_by_a_named_one(
    tiny: Terminal, tiny_model: Path, records: int
) -> None:
    """A load warns, and names the model in the command that it prints; a query without a model is refused."""
    add = ".add(ids=['x'], embeddings=[[1.0] * 384], documents=['x'])" if records else ""
    plain_chroma(tiny, f"client.create_collection('theirs', embedding_function=None){add}")
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello"}}])
    said = tiny.type("upsert-cli run a.jsonl --collection theirs").stderr
    assert "does not say with which model" in said
    [printed] = [line.strip() for line in said.splitlines() if line.strip().startswith("upsert-cli query")]
    assert "--model sentence-transformers/all-MiniLM-L6-v2" in printed
    assert re.sub("query .*? --", "query 'your text' --", printed) in tiny.type("upsert-cli info latest").stdout
    assert printed[-60:] in tiny.type("upsert-cli run a.jsonl --collection theirs").stderr  # nothing has changed
    tiny.env["UPSERT_CLI_QUERY_MODEL_PATH"] = str(tiny_model)
    assert "name it by --model NAME" in tiny.type("upsert-cli query hello --collection theirs", expect=4).stderr
    found = json.loads(tiny.type(f"{printed} --json").stdout)
    assert found["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert found["hits"][0]["id"] == "a"


def test_a_model_that_contradicts_the_collection_is_refused(tiny: Terminal, tiny_model: Path, other_model: str) -> None:
    """The stamp beats the option; the same name in other letter case is no contradiction."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello"}}])
    tiny.type("upsert-cli run a.jsonl")
    said = tiny.type(f"upsert-cli query hello {other_model}", expect=4).stderr
    assert "was made with the model sentence-transformers/all-MiniLM-L6-v2, not sentence-transformers/para" in said
    tiny.type(f"upsert-cli query hello --model Sentence-Transformers/ALL-minilm-l6-v2 --model-path {tiny_model}")
