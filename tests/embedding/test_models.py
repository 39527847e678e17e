"""Finding a model: what is asked in which order, and what an error says."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from upsert_cli.embedding.cache import cache_folder
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.embedding.models import Model, find_model, list_models
from upsert_cli.errors import ModelDamaged, ModelNotFound, UnknownModel

SMALL = "BAAI/bge-small-en-v1.5"
WITH_DATA = "intfloat/multilingual-e5-large"
STATIC = "minishlab/potion-base-8M"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a cache that does not exist yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("UPSERT_CLI_MODEL_CACHE", str(folder))
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test that opens a connection, looks up a name or starts pip."""
    for holder, name in ((socket, "create_connection"), (socket, "getaddrinfo"), (subprocess, "run")):
        monkeypatch.setattr(holder, name, lambda *_arguments, **_options: pytest.fail("the network was asked"))


def make_folder(folder: Path, *names: str, limits: dict[str, Any] | None = None) -> Path:
    """Makes a folder with the files of a model, as far as finding it can tell."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("content")
    if limits is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(limits))
    return folder


def test_the_cached_default_model_loads_nothing_heavy(model: Model) -> None:
    """A model whose facts are known is found in the cache without fastembed, onnxruntime, onnx or numpy."""
    heavy = ("fastembed", "onnxruntime", "onnx", "numpy", "tokenizers", "huggingface_hub")
    code = (
        "import sys\nfrom upsert_cli.embedding.models import DEFAULT_MODEL, find_model\n"
        "found = find_model(DEFAULT_MODEL)\n"
        f"print(found.source, found.folder, [name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=2) == ["cache", str(model.folder), "[]\n"]


@pytest.mark.usefixtures("no_network")
def test_the_cached_default_model_needs_no_network(model: Model) -> None:
    """What is in the cache is neither checked nor refreshed over the network, asked for in any case of letters."""
    found = find_model(DEFAULT_MODEL.upper())
    assert (found.name, found.dimension, found.max_tokens) == (DEFAULT_MODEL, 384, 256)
    assert found.folder == model.folder
    assert found == find_model(DEFAULT_MODEL)
    assert found.identity == "sentence-transformers/all-MiniLM-L6-v2|384|256"


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", [DEFAULT_MODEL, SMALL])
def test_offline_without_the_model_says_each_place_and_the_remedy(empty_cache: Path, name: str) -> None:
    """Offline, an empty cache is an error of one line with every place, and two ways out; nothing is written."""
    with pytest.raises(ModelNotFound) as caught:
        find_model(name, offline=True)
    asked = ["cache", "model hub"] + (["package index"] if name == DEFAULT_MODEL else [])
    assert [place for place, _ in caught.value.tried] == asked
    assert caught.value.exit_code == 1
    said = str(caught.value)
    assert str(empty_cache) in said and f"upsert-cli models fetch --model {name}" in said and "--model-path" in said
    assert "\n" not in said
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
def test_an_unknown_model_brings_the_names_near_it(typed: str, meant: str) -> None:
    """A name that lacks its organisation, or has a mistake, is answered with the one that is meant."""
    with pytest.raises(UnknownModel) as caught:
        find_model(typed, offline=True)
    assert caught.value.near[0] == meant
    assert caught.value.exit_code == 2
    assert meant in str(caught.value) and "upsert-cli models list" in str(caught.value)


def test_a_name_like_no_other_is_no_guess() -> None:
    """Where nothing is near, nothing is proposed."""
    with pytest.raises(UnknownModel) as caught:
        find_model("zzzzzzzz", offline=True)
    assert caught.value.near == ()
    assert "did you mean" not in str(caught.value)


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
    found = find_model(name, folder=folder, offline=True)
    assert (found.folder, found.source, found.max_tokens) == (folder, "given folder", tokens)
    for lacking in files:
        moved = (folder / lacking).rename(tmp_path / "moved")
        with pytest.raises(ModelDamaged) as caught:
            find_model(name, folder=folder)
        assert caught.value.problem == f"lacks {lacking}"
        moved.rename(folder / lacking)


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    """An empty folder and none at all are told apart, and the remedy is another folder."""
    with pytest.raises(ModelDamaged, match=r"lacks model\.onnx, tokenizer\.json, tokenizer_config\.json; give --mod"):
        find_model(DEFAULT_MODEL, folder=tmp_path)
    with pytest.raises(ModelDamaged, match="does not exist; give --model-path"):
        find_model(DEFAULT_MODEL, folder=tmp_path / "no")


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
def test_the_limit_is_the_one_that_fastembed_takes(tmp_path: Path, limits: dict[str, Any], tokens: int) -> None:
    """The lower of the tokenizer's usable settings counts, for us as for fastembed."""
    from fastembed.common.preprocessor_utils import _resolve_max_context

    folder = make_folder(tmp_path, "model_optimized.onnx", "tokenizer.json", limits=limits)
    assert find_model(SMALL, folder=folder).max_tokens == tokens == _resolve_max_context(limits, folder)


@pytest.mark.parametrize("content", ["{}", '{"model_max_length": 1e30}', "[1]", "half a", "\x00"])
def test_settings_without_a_limit_are_damage(tmp_path: Path, content: str) -> None:
    """A tokenizer_config.json from which no limit can be read is named."""
    folder = make_folder(tmp_path, "model_optimized.onnx", "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(ModelDamaged, match=r"tokenizer_config\.json that names no limit"):
        find_model(SMALL, folder=folder)


def test_the_remedy_for_damage_in_the_cache_is_to_fetch_anew(empty_cache: Path) -> None:
    """A folder that the user did not name is one that may be removed."""
    make_folder(empty_cache / "models--BAAI--bge-small-en-v1.5", "model_optimized.onnx", "tokenizer.json", limits={})
    with pytest.raises(ModelDamaged, match="remove it, and it is fetched anew"):
        find_model(SMALL, offline=True)


def test_the_list_has_every_model_and_says_which_are_cached(model: Model) -> None:
    """The default model stands first, as cached; what is listed can be asked for by its name."""
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
    """The list of models is for the day on which one of them is damaged."""
    make_folder(empty_cache / "models--BAAI--bge-small-en-v1.5", "model_optimized.onnx", "tokenizer.json", limits={})
    (info,) = [info for info in list_models() if info.name == SMALL]
    assert (info.cached, info.max_tokens) == (True, 512)


def test_the_cache_is_the_users_and_never_temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a setting the models are below the user's cache folder; the setting is taken as a path of the shell."""
    monkeypatch.delenv("UPSERT_CLI_MODEL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert tmp_path in cache_folder().parents
    monkeypatch.setenv("UPSERT_CLI_MODEL_CACHE", "~/models")
    assert cache_folder() == tmp_path / "models"
