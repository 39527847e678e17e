"""Fixtures of all tests: a separate home, a terminal to type into, the real model and a tiny one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.support.forked import forked_children, forker
from tests.support.items import Items, make_some_items
from tests.support.other_program import ROWS, some_records, write_records
from tests.support.terminal import Terminal
from tests.support.tiny_model import build_tiny_model
from upsert_cli.embedding.cache import cache_folder
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.embedding.embedder import usable_processors
from upsert_cli.embedding.identity import Model
from upsert_cli.embedding.models import find_model
from upsert_cli.store import child_process

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy one takes longer, which is no failure
hypothesis.settings.load_profile("any machine")

# Determined before the tests get another home: the model is fetched once per machine.
MODEL_CACHE = cache_folder()
OTHER_CHROMAS = MODEL_CACHE.parent / "chroma-for-tests"
"""The environments with other versions of Chroma, each made once a machine."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one worker more than there are processors, since some tests mostly wait."""
    return usable_processors() + 1


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make it impossible to write to the developer's home."""
    home = tmp_path_factory.mktemp("home")
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith(("UPSERT_CLI_", "XDG_", "CHROMA_", "HF_"))]:
        patch.delenv(name)
    for name in ("CI", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "FORCE_COLOR", "NO_COLOR"):
        patch.delenv(name, raising=False)
    # Let programs that the tests start keep their compiled modules; otherwise each compiles all its imports.
    patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    # A shell's background job ignores some signals, and so would all that the tests start.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    patch.setenv("HOME", str(home))
    patch.setenv("UPSERT_CLI_MODEL_CACHE", str(MODEL_CACHE))
    yield home
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _forked_children(_home: Path) -> Iterator[None]:
    """Fork the children of stores that tests open themselves; `cold_children` starts those of one test."""
    with forked_children():
        yield
    if forker.cache_info().currsize:
        assert forker().changed(os.environ) == set(), "a test left variables with which no command is forked any more"


@pytest.fixture
def cold_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the children of stores as users do, each in its own interpreter."""
    monkeypatch.setattr(child_process, "subprocess", subprocess)


@pytest.fixture(scope="session")
def model() -> Model:
    """Return the default model, fetched if this machine does not have it yet."""
    return find_model(DEFAULT_MODEL)


@pytest.fixture(scope="session")
def tiny_model(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an encoder without layers, with random weights and few words: for speed alone."""
    return build_tiny_model(model, tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """Return a terminal in an empty folder."""
    return Terminal(tmp_path)


@pytest.fixture
def tiny(terminal: Terminal, tiny_model: Path) -> Terminal:
    """Return a terminal whose loads use the tiny model."""
    terminal.env["UPSERT_CLI_RUN_MODEL_PATH"] = str(tiny_model)
    terminal.env["UPSERT_CLI_CATEGORIES_RUN_MODEL_PATH"] = str(tiny_model)
    return terminal


@pytest.fixture(scope="session")
def other_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the options for another model of the same dimension."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("other-model"), dirs_exist_ok=True)
    (folder / "model.onnx").rename(folder / "model_optimized.onnx")
    return f"--model sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2 --model-path {folder}"


@pytest.fixture
def make_items() -> Items:
    """Return a maker of items: `make_items(count, mark="first")`."""
    return make_some_items


@pytest.fixture(scope="session")
def old_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a collection `docs` of another program."""
    terminal = Terminal(tmp_path_factory.mktemp("other-program"))
    write_records(terminal, some_records(ROWS))
    return terminal.folder / "old"
