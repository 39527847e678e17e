"""A collection holds vectors of one model: of its weights, in whatever folder they are, and with its prefixes."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.other_program import plain_chroma
from tests.support.terminal import Terminal
from tests.support.tiny_model import tuned_model
from upsert_cli.embedding.identity import Model

DEFAULT = "models--sentence-transformers--all-MiniLM-L6-v2"
BGE = "BAAI/bge-small-en"
BGE_QUERY = "Represent this sentence for searching relevant passages: "
WITH_PREFIXES = "--passage-prefix 'passage: ' --query-prefix 'query: '"
TEXTS = ["one text", "another text", "a third"]


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a cache of models, a copy of the one in it, a tuned one, and one of another name."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_model, folder / "cache" / DEFAULT)
    shutil.copytree(tiny_model, folder / "copy")
    tuned_model(tiny_model, folder / "tuned")
    shutil.copytree(tiny_model, folder / "bge")
    (folder / "bge" / "model.onnx").rename(folder / "bge" / "model_optimized.onnx")
    return folder


@pytest.fixture
def cached(terminal: Terminal, models: Path) -> Terminal:
    """Return a terminal whose cache has the model, with a file of items."""
    terminal.env["UPSERT_CLI_MODEL_CACHE"] = str(models / "cache")
    _write(terminal, "a.jsonl", "a")
    _write(terminal, "b.jsonl", "b")
    return terminal


def _write(terminal: Terminal, name: str, mark: str, *, prefix: str = "") -> None:
    rows = [{"object_id": f"{mark}{n}", "payload": {"text": prefix + text}} for n, text in enumerate(TEXTS)]
    terminal.write(name, rows)


def _stamp(terminal: Terminal, change: str = "") -> dict[str, Any]:
    """Return the metadata of the collection as plain chromadb has it, after a change to `stamp`."""
    stamp: dict[str, Any] = plain_chroma(
        terminal,
        f"collection = client.get_collection('default', embedding_function=None)\n"
        f"stamp = dict(collection.metadata)\n{change}\n"
        "if stamp != collection.metadata: collection.modify(metadata=stamp)\nprint(json.dumps(stamp))",
    )
    return stamp


def _without_weights(terminal: Terminal) -> None:
    """Make the collection one of an older version."""
    _stamp(terminal, "del stamp['upsert_cli_weights']")


def _vectors(terminal: Terminal, mark: str) -> list[list[float]]:
    records = terminal.records(vectors=True)
    return [list(records[f"{mark}{n}"]["vector"]) for n in range(len(TEXTS))]


# -- weights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "expect"),
    [
        ("", "--model-path {}/copy", 0),
        ("--model-path {}/copy", "", 0),
        ("", "--model-path {}/tuned", 4),
        ("--model-path {}/tuned", "", 4),
        ("--model-path {}/tuned", "--model-path {}/copy", 4),
        ("--model-path {}/tuned", "--model-path {}/tuned", 0),
    ],
)
def test_the_weights_decide_and_not_the_folder(
    cached: Terminal, models: Path, first: str, second: str, expect: int
) -> None:
    """The same weights load from any folder; other weights under the same name are refused, and nothing is written."""
    cached.type(f"upsert-cli run a.jsonl {first.format(models)}")
    before = cached.records(vectors=True)
    for line in ("run b.jsonl --dry-run", "run b.jsonl --task-id b"):
        said = cached.type(f"upsert-cli {line} {second.format(models)}", expect=expect).stderr
        assert (f"differ from those that made the collection default in {cached.folder}" in said) is (expect == 4)
    if expect == 4:
        assert cached.records(vectors=True) == before
        assert cached.info("b")["status"] == "refused"
        cached.type("upsert-cli restart b", expect=4)


def test_the_same_weights_load_without_a_cache(cached: Terminal, models: Path) -> None:
    """A copy of the files is known by its digest on a machine that never fetched the model."""
    cached.type("upsert-cli run a.jsonl")
    cached.env["UPSERT_CLI_MODEL_CACHE"] = str(cached.folder / "none")
    cached.type(f"upsert-cli run b.jsonl --model-path {models}/copy")
    assert len(cached.records()) == 2 * len(TEXTS)
    cached.type(f"upsert-cli run b.jsonl --model-path {models}/tuned", expect=4)


def test_published_files_in_another_form_are_the_same(cached: Terminal, models: Path) -> None:
    """The files from the model hub and those from the package index count as one model."""
    cached.type("upsert-cli run a.jsonl")
    stamp = _stamp(cached, "stamp['upsert_cli_weights'] = 'published ' + 'f' * 32")
    assert stamp["upsert_cli_weights"] == f"published {'f' * 32}"
    cached.type("upsert-cli run b.jsonl")
    cached.type(f"upsert-cli run b.jsonl --model-path {models}/copy --force")
    cached.type(f"upsert-cli run b.jsonl --model-path {models}/tuned", expect=4)


def test_collections_of_older_versions_stay_loadable(cached: Terminal, models: Path) -> None:
    """A collection whose stamp names no weights is loaded as before, and embeds nothing again."""
    cached.type("upsert-cli run a.jsonl")
    _without_weights(cached)
    before = cached.records(vectors=True)
    for more in ("", f" --model-path {models}/copy", f" --model-path {models}/tuned"):
        done = cached.type(f"upsert-cli run a.jsonl --json{more}")
        assert json.loads(done.stdout.splitlines()[-1])["counts"]["unchanged"] == len(TEXTS)
        assert ("does not say with which weights" in done.stderr) is ("tuned" in more)
    assert cached.records(vectors=True) == before


@pytest.mark.parametrize("line", ["query text", "verify", "verify --repair"])
def test_reading_compares_the_weights_too(cached: Terminal, models: Path, line: str) -> None:
    """`query` and `verify` refuse weights other than the collection's, with a remedy that works."""
    cached.type(f"upsert-cli run a.jsonl --model-path {models}/tuned")
    said = cached.type(f"upsert-cli {line} --model-path {models}/copy", expect=4).stderr
    assert f"{models}/copy differ from those that made the collection default" in said
    assert "--model-path" in said
    cached.type(f"upsert-cli {line} --model-path {models}/tuned")
    if line == "query text":
        cached.type("upsert-cli query text", expect=4)


def test_tuned_weights_are_not_those_of_chromas_default_function(cached: Terminal, models: Path) -> None:
    """A plain client may query by text only if the weights and the texts are those of Chroma's own function."""
    functions = {}
    for name, more in (
        ("published", ""),
        ("tuned", f"--model-path {models}/tuned"),
        ("prefixed", "--passage-prefix x"),
    ):
        cached.type(f"upsert-cli run a.jsonl --collection {name} {more}")
        described = f"client.get_collection('{name}').configuration_json['embedding_function']['type']"
        functions[name] = plain_chroma(cached, f"print(json.dumps({described}))")
    assert functions == {"published": "known", "tuned": "legacy", "prefixed": "legacy"}


def test_the_default_function_has_the_published_weights(cached: Terminal, models: Path) -> None:
    """Other weights neither load into, answer for, nor repair a collection of Chroma's default function, or its copy."""
    add = "add(ids=['x'], documents=['x'], embeddings=[[0.1] * 384])"
    plain_chroma(cached, f"client.create_collection('plain').{add}")
    cached.type("upsert-cli run chroma:chroma#plain --keep-vectors --collection copy")
    for collection in ("plain", "copy"):
        for line in ("run a.jsonl", "query text", "verify --repair"):
            said = cached.type(f"upsert-cli {line} --collection {collection} --model-path {models}/tuned", expect=4)
            assert "weights" in said.stderr


def _built_by_another_onnx(model: Model, folder: Path) -> Path:
    """Fill a new folder with the real model, whose graph another version of onnx has written."""
    import onnx

    shutil.copytree(model.folder, folder)
    graph = onnx.load(folder / "model.onnx")
    if graph.producer_name == "upsert-cli":  # the model hub's has the same bytes everywhere
        graph.producer_version = "another"
        onnx.save(graph, folder / "model.onnx")
    return folder


@pytest.mark.parametrize("made_by", ["chroma", "this tool"])
def test_the_published_weights_are_known_without_a_cache(terminal: Terminal, model: Model, made_by: str) -> None:
    """The default model in the user's own folder is the model of Chroma's function, whichever tool wrote its graph."""
    if made_by == "chroma":
        plain_chroma(terminal, "client.create_collection('default')")
    _write(terminal, "a.jsonl", "a")
    _write(terminal, "b.jsonl", "b")
    terminal.type("upsert-cli run a.jsonl")
    folder = _built_by_another_onnx(model, terminal.folder / "own")
    terminal.env["UPSERT_CLI_MODEL_CACHE"] = str(terminal.folder / "none")
    for line in ("run b.jsonl", "query text", "verify --repair"):
        terminal.type(f"upsert-cli {line} --model-path own")
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    assert "weights" in terminal.type("upsert-cli run a.jsonl --force --model-path own", expect=4).stderr


# -- prefixes ------------------------------------------------------------------------------------------------------


def test_a_prefix_is_embedded_and_not_stored(cached: Terminal) -> None:
    """The vectors include the prefix; documents and metadata do not."""
    _write(cached, "b.jsonl", "a", prefix="passage: ")
    cached.type(f"upsert-cli run a.jsonl {WITH_PREFIXES}")
    found = _vectors(cached, "a")
    assert [record["document"] for record in cached.records().values()] == TEXTS
    assert "passage: " not in json.dumps(list(cached.records().values()))
    shutil.rmtree(cached.folder / "chroma")
    cached.type("upsert-cli run b.jsonl")
    assert _vectors(cached, "a") == found


def test_a_query_takes_the_prefix_from_the_collection(cached: Terminal) -> None:
    """The nearest record is at the distance between the two texts with their prefixes."""
    cached.type("upsert-cli run a.jsonl --passage-prefix 'same: ' --query-prefix 'same: ' --task-id t")
    assert _stamp(cached)["upsert_cli_query_prefix"] == "same: "
    [hit, *_] = json.loads(cached.type(f"upsert-cli query '{TEXTS[1]}' --json").stdout)["hits"]
    assert hit["id"] == "a1"
    assert hit["distance"] == pytest.approx(0, abs=1e-5)
    options = cached.info("t")["options"]
    assert (options["passage_prefix"], options["query_prefix"]) == ("same: ", "same: ")
    long = cached.type(f"upsert-cli query '{'word ' * 253}'").stderr
    assert "more than the 256 tokens" in long


@pytest.mark.parametrize("changed", ["--passage-prefix 'other: '", "--query-prefix ''", "--passage-prefix ''"])
def test_other_prefixes_are_refused(cached: Terminal, changed: str) -> None:
    """A load with another prefix writes nothing, and the message ends with options that continue the collection."""
    cached.type(f"upsert-cli run a.jsonl {WITH_PREFIXES}")
    name, _, value = shlex.join(shlex.split(changed)).partition(" ")
    asked = re.sub(rf"{name} '[^']*'", f"{name} {value}", WITH_PREFIXES)
    said = cached.type(f"upsert-cli run b.jsonl {asked}", expect=4).stderr
    assert len(cached.records()) == len(TEXTS)
    [remedy] = re.findall(r"`(--passage-prefix.*?)` continues it", said)
    assert remedy == WITH_PREFIXES
    cached.type(f"upsert-cli run b.jsonl {remedy}")
    assert len(cached.records()) == 2 * len(TEXTS)


def test_a_model_that_asks_for_a_prefix_gets_it(cached: Terminal, models: Path) -> None:
    """The default is the prefix of the model's maker; an empty text asks for none, and a variable cannot."""
    bge = f"--model {BGE} --model-path {models}/bge"
    cached.type(f"upsert-cli run a.jsonl {bge} --task-id t")
    assert _stamp(cached)["upsert_cli_query_prefix"] == BGE_QUERY
    assert cached.info("t")["options"]["query_prefix"] == BGE_QUERY
    cached.type(f"upsert-cli run a.jsonl {bge} --task-id t")  # the same load
    cached.type(f"upsert-cli run a.jsonl {bge} --query-prefix ''", expect=4)
    cached.env["UPSERT_CLI_RUN_QUERY_PREFIX"] = ""
    cached.type(f"upsert-cli run a.jsonl {bge}")
    cached.type(f"upsert-cli run a.jsonl {bge} --query-prefix '' --collection none")
    check = json.loads(cached.type(f"upsert-cli models check {bge} --json").stdout)
    assert (check["passage_prefix"], check["query_prefix"]) == ("", BGE_QUERY)


def test_a_collection_without_prefixes_is_continued_without_them(cached: Terminal, models: Path) -> None:
    """A collection from before prefixes refuses them, and names the options that continue without them."""
    bge = f"--model {BGE} --model-path {models}/bge"
    cached.type(f"upsert-cli run a.jsonl {bge} --query-prefix ''")
    _without_weights(cached)
    assert not [key for key in _stamp(cached) if key.endswith("prefix")]
    said = cached.type(f"upsert-cli run b.jsonl {bge}", expect=4).stderr
    assert "`--passage-prefix '' --query-prefix ''` continues it" in said
    cached.type(f"upsert-cli run b.jsonl {bge} --passage-prefix '' --query-prefix ''")


def _of_an_older_version(terminal: Terminal) -> None:
    """Remove the keys of prefixes from all tasks of the journal."""
    path = terminal.journal / "tasks-000000.json"
    content = json.loads(path.read_text())
    for task in content["tasks"].values():
        del task["options"]["passage_prefix"], task["options"]["query_prefix"]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "command", ["restart t", f"run a.jsonl --model {BGE} --model-path {{}}/bge --task-id t", "work"]
)
def test_a_task_of_an_older_version_ends_as_it_began(cached: Terminal, models: Path, command: str) -> None:
    """A task without prefixes in its options has none, however it is continued."""
    bge = f"--model {BGE} --model-path {models}/bge"
    cached.type(f"upsert-cli run a.jsonl {bge} --task-id t --enqueue")
    _of_an_older_version(cached)
    cached.type(f"upsert-cli {command.format(models)}")
    assert cached.info("t")["status"] == "done"
    assert not [key for key in _stamp(cached) if key.endswith("prefix")]
    cached.type(f"upsert-cli run a.jsonl {bge} --task-id t --query-prefix x", expect=4)


def test_verify_knows_the_prefix(cached: Terminal) -> None:
    """A collection loaded with a prefix verifies, by task and by collection, and is repaired with it."""
    cached.type(f"upsert-cli run a.jsonl --task-id t {WITH_PREFIXES}")
    before = cached.records(vectors=True)
    for line in ("verify t", "verify"):
        cached.type(f"upsert-cli {line}")
    update = "update(ids=['a1'], documents=['changed'], embeddings=[[0.5] * 384])"
    plain_chroma(cached, f"client.get_collection('default', embedding_function=None).{update}")
    cached.type("upsert-cli verify t", expect=3)
    cached.type("upsert-cli verify t --repair")
    after = cached.records(vectors=True)
    assert after.keys() == before.keys()
    for one, record in after.items():
        assert record["document"] == before[one]["document"]
        assert list(record["vector"]) == pytest.approx(list(before[one]["vector"]), abs=1e-6)


def test_tokens_count_with_the_prefix(cached: Terminal) -> None:
    """`preview`, the count of truncated texts and the chunks of --split see the text that the model reads."""
    cached.write("long.jsonl", [{"object_id": "a", "payload": {"text": "word " * 253}}])
    for more, tokens in (("", 255), ("--passage-prefix 'passage: '", 257)):
        [shown] = map(json.loads, cached.type(f"upsert-cli preview long.jsonl --json {more}").stdout.splitlines())
        assert (shown["tokens"], shown["truncated"]) == (tokens, tokens > 256)
        cached.type(f"upsert-cli run long.jsonl --collection c{tokens} --task-id t{tokens} {more}")
        assert cached.info(f"t{tokens}")["counts"]["truncated"] == (tokens > 256)
    split = "--split --passage-prefix 'passage: '"
    lines = cached.type(f"upsert-cli preview long.jsonl --json {split}").stdout.splitlines()
    assert [chunk["truncated"] for chunk in map(json.loads, lines)] == [False, False]
    cached.type(f"upsert-cli run long.jsonl --collection split --task-id s {split}")
    assert cached.info("s")["counts"]["truncated"] == 0
    cached.type(
        "upsert-cli run long.jsonl --collection none --split --max-tokens 8 --passage-prefix 'a b c d e f'", expect=4
    )
