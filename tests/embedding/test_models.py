"""Finding a model: the order of the search, and its errors."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from upsert_cli.embedding.cache import cache_folder
from upsert_cli.embedding.catalog import DEFAULT_MODEL, GivenFolder
from upsert_cli.embedding.identity import Model
from upsert_cli.embedding.models import find_model, list_models
from upsert_cli.errors import UpsertCliError, UsageFault

SMALL = "BAAI/bge-small-en-v1.5"
WITH_DATA = "intfloat/multilingual-e5-large"
STATIC = "minishlab/potion-base-8M"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a cache that does not exist yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("UPSERT_CLI_MODEL_CACHE", str(folder))
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that opens a connection, resolves a name or starts pip."""
    for holder, name in ((socket, "create_connection"), (socket, "getaddrinfo"), (subprocess, "run")):
        monkeypatch.setattr(holder, name, lambda *_arguments, **_options: pytest.fail("the network was asked"))


def make_folder(folder: Path, *names: str, limits: dict[str, Any] | None = None) -> Path:
    """Make a folder with files that look like a model's to the search."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("content")
    if limits is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(limits))
    return folder


def test_the_cached_default_model_loads_nothing_heavy(model: Model) -> None:
    """The default model is found in the cache without importing fastembed, onnxruntime, onnx or numpy."""
    heavy = ("fastembed", "onnxruntime", "onnx", "numpy", "tokenizers", "huggingface_hub")
    code = (
        "import sys\nfrom upsert_cli.embedding.catalog import DEFAULT_MODEL\nfrom upsert_cli.embedding.models import find_model\n"
        "found = find_model(DEFAULT_MODEL)\n"
        f"print(found.source, found.folder, [name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=2) == ["cache", str(model.folder), "[]\n"]


@pytest.mark.usefixtures("no_network")
def test_the_cached_default_model_needs_no_network(model: Model) -> None:
    """A cached model is neither verified nor refreshed over the network; letter case in its name does not matter."""
    found = find_model(DEFAULT_MODEL.upper())
    assert (found.name, found.dimension, found.max_tokens) == (DEFAULT_MODEL, 384, 256)
    assert found.folder == model.folder
    assert found == find_model(DEFAULT_MODEL)
    assert found.hashed == "sentence-transformers/all-MiniLM-L6-v2|384|256"


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", [DEFAULT_MODEL, SMALL])
def test_a_missing_model_offline_is_one_line_with_every_origin_and_two_remedies(empty_cache: Path, name: str) -> None:
    """Offline with an empty cache, the error names each origin in order and both remedies, and nothing is written."""
    asked = ["cache", "model hub"] + (["package index"] if name == DEFAULT_MODEL else [])
    with pytest.raises(
        UpsertCliError, match=r"\(" + "; ".join(f"{origin}: [^;]*" for origin in asked) + r"\)"
    ) as caught:
        find_model(name, offline=True)
    assert caught.value.exit_code == 1
    message = str(caught.value)
    assert str(empty_cache) in message
    assert f"upsert-cli models fetch --model {name}" in message and "--model-path" in message
    assert "\n" not in message
    assert not empty_cache.exists()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("all-MiniLM-L6-v2", DEFAULT_MODEL),
        ("sentence-transformers/all-MiniLM-L6", DEFAULT_MODEL),
        ("bge-small-en-v1.5", SMALL),
        ("openai/bge-smal-en-v1.5", SMALL),
    ],
)
def test_an_unknown_model_suggests_similar_names(typed: str, meant: str) -> None:
    """A name without its organisation, or with a typing error, is answered with the intended one first."""
    with pytest.raises(UsageFault, match=f"did you mean {meant}.*`upsert-cli models list`"):
        find_model(typed, offline=True)


def test_a_name_unlike_any_other_suggests_nothing() -> None:
    """Without a similar name, the error only says where the list is."""
    with pytest.raises(UsageFault, match="'zzzzzzzz'; `upsert-cli models list`"):
        find_model("zzzzzzzz", offline=True)


@pytest.mark.usefixtures("no_network", "empty_cache")
@pytest.mark.parametrize(
    ("name", "files", "tokens"),
    [
        (DEFAULT_MODEL, ("model.onnx", "tokenizer.json", "tokenizer_config.json"), 256),
        (SMALL, ("model_optimized.onnx", "tokenizer.json", "tokenizer_config.json"), 77),
        ("thenlper/gte-base", ("onnx/model.onnx", "tokenizer.json", "tokenizer_config.json"), 77),
        (WITH_DATA, ("model.onnx", "model.onnx_data", "tokenizer.json", "tokenizer_config.json"), 77),
        (STATIC, ("model.safetensors", "tokenizer.json"), 512),
    ],
)
def test_a_given_folder_must_hold_all_files_of_the_model(
    tmp_path: Path, name: str, files: tuple[str, ...], tokens: int
) -> None:
    """A complete folder is the model; each file that it lacks is named."""
    folder = make_folder(tmp_path / "given", *files, limits={"model_max_length": 77})
    found = find_model(name, given=GivenFolder(path=folder), offline=True)
    assert (found.folder, found.source, found.max_tokens) == (folder, "given folder", tokens)
    for lacking in files:
        moved = (folder / lacking).rename(tmp_path / "moved")
        with pytest.raises(UpsertCliError, match=f"lacks {re.escape(lacking)}; give --model-path"):
            find_model(name, given=GivenFolder(path=folder))
        moved.rename(folder / lacking)


def test_all_missing_files_are_named_together(tmp_path: Path) -> None:
    """An empty folder and a missing one have different messages, and the remedy is another folder."""
    with pytest.raises(UpsertCliError, match=r"lacks model\.onnx, tokenizer\.json, tokenizer_config\.json; give --mod"):
        find_model(DEFAULT_MODEL, given=GivenFolder(path=tmp_path))
    with pytest.raises(UpsertCliError, match="does not exist; give --model-path"):
        find_model(DEFAULT_MODEL, given=GivenFolder(path=tmp_path / "no"))


@pytest.mark.parametrize(
    ("limits", "tokens"),
    [
        ({"model_max_length": 512}, 512),
        ({"model_max_length": 512, "max_length": 128}, 128),
        ({"model_max_length": 10**30, "max_length": 128}, 128),
        ({"model_max_length": 1e30, "max_length": 128}, 128),
        ({"model_max_length": None, "max_length": 64}, 64),
        ({"model_max_length": 0, "max_length": 64}, 64),
        ({"model_max_length": True, "max_length": 64}, 64),
    ],
)
def test_the_limit_is_the_one_that_fastembed_uses(tmp_path: Path, limits: dict[str, Any], tokens: int) -> None:
    """The lowest usable setting of the tokenizer counts, as in fastembed."""
    from fastembed.common.preprocessor_utils import _resolve_max_context

    folder = make_folder(tmp_path, "model_optimized.onnx", "tokenizer.json", limits=limits)
    assert (
        find_model(SMALL, given=GivenFolder(path=folder)).max_tokens == tokens == _resolve_max_context(limits, folder)
    )


@pytest.mark.parametrize("content", ["{}", '{"model_max_length": 1e30}', "[1]", "half a", "\x00"])
def test_a_tokenizer_without_a_limit_is_refused(tmp_path: Path, content: str) -> None:
    """The error names a tokenizer_config.json from which no limit can be read."""
    folder = make_folder(tmp_path, "model_optimized.onnx", "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(UpsertCliError, match=r"tokenizer_config\.json that names no limit"):
        find_model(SMALL, given=GivenFolder(path=folder))


def test_a_damaged_model_in_the_cache_may_be_removed(empty_cache: Path) -> None:
    """The remedy is to remove the folder, since the user did not name it."""
    make_folder(empty_cache / "models--BAAI--bge-small-en-v1.5", "model_optimized.onnx", "tokenizer.json", limits={})
    with pytest.raises(UpsertCliError, match="remove the folder, and it is fetched again"):
        find_model(SMALL, offline=True)


def test_the_list_has_every_model_and_says_which_are_cached(model: Model) -> None:
    """The default model comes first, as cached, and other models have a dimension and a size."""
    known = list_models()
    assert known[0].as_json() == known[0].as_json() | {
        "name": model.name,
        "dimension": model.dimension,
        "max_tokens": model.max_tokens,
        "cached": True,
        "license": "apache-2.0",
    }
    assert {SMALL, WITH_DATA, STATIC} <= {info.name for info in known}
    assert next(info for info in known if info.name == SMALL).max_tokens == 512
    assert all(info.dimension > 0 and info.size_gb > 0 for info in known)


@pytest.mark.usefixtures("empty_cache")
def test_nothing_is_listed_as_cached_without_files() -> None:
    """An empty cache has no model."""
    assert [info.name for info in list_models() if info.cached] == []


def test_a_listed_model_with_broken_settings_does_not_break_the_list(empty_cache: Path) -> None:
    """A damaged model is listed with the limit that its description gives."""
    make_folder(empty_cache / "models--BAAI--bge-small-en-v1.5", "model_optimized.onnx", "tokenizer.json", limits={})
    (info,) = [info for info in list_models() if info.name == SMALL]
    assert (info.cached, info.max_tokens) == (True, 512)


def test_the_cache_is_the_users_and_never_temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Models are below the user's cache folder by default; the variable may begin with `~`."""
    monkeypatch.delenv("UPSERT_CLI_MODEL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert tmp_path in cache_folder().parents
    monkeypatch.setenv("UPSERT_CLI_MODEL_CACHE", "~/models")
    assert cache_folder() == tmp_path / "models"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("qdrant/BM25", "a sparse model"),
        ("BAAI/bge-reranker-base", "a reranker"),
        ("Qdrant/clip-ViT-B-32-vision", "an image model"),
        ("colbert-ir/colbertv2.0", "a late interaction model"),
        ("Qdrant/colpali-v1.3-fp16", "a multimodal late interaction model"),
    ],
)
def test_a_model_of_another_kind_is_named_as_such(name: str, kind: str) -> None:
    """A model that fastembed has in another list is no unknown name."""
    with pytest.raises(UsageFault, match=rf"{re.escape(name)}' is {kind}, and only dense text models can be loaded"):
        find_model(name)
