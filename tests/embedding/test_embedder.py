"""The embedder: fastembed loads the model once, reads no more of a text than it needs, and names a broken model."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from upsert_cli.embedding.catalog import DEFAULT_MODEL, GivenFolder
from upsert_cli.embedding.embedder import Embedder, Loader, load_model
from upsert_cli.embedding.identity import Model
from upsert_cli.embedding.models import find_model
from upsert_cli.errors import UpsertCliError


def test_only_the_beginning_of_an_endless_text_is_tokenized(tiny_model: Path) -> None:
    """A long text has the same vector as its beginning, wherever a word is cut, and 7 MB of text take little memory."""
    from fastembed import TextEmbedding

    model = find_model(DEFAULT_MODEL, given=GivenFolder(path=tiny_model))
    embedder = load_model(model)
    own = TextEmbedding(model.name, specific_model_path=str(model.folder))
    word = "pneumonoultramicroscopicsilicovolcanoconiosis"
    texts = [f"{'x' * shift} " + f"{word} and {'y' * 150}, " * 400 for shift in range(1, 60, 7)]
    texts += ["\u4e2d\u6587" * 20_000, " \n" * 30_000 + "late words " * 300, "z" * 50_000]
    for text in texts:
        np.testing.assert_allclose(embedder.embed([text]), list(own.embed([text])), atol=1e-5)

    program = "\n".join(
        [
            "import resource, sys",
            "from pathlib import Path",
            "from upsert_cli.embedding.embedder import load_model",
            "from upsert_cli.embedding.catalog import GivenFolder",
            "from upsert_cli.embedding.models import find_model",
            f"embedder = load_model(find_model({model.name!r}, given=GivenFolder(path=Path({str(model.folder)!r}))))",
            "text = 'word and more ' * (int(sys.argv[1]) // 14)",
            "print(embedder.count([text]), embedder.embed([text]).shape)",
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)",
        ]
    )

    def peak(characters: int) -> int:
        command = [sys.executable, "-c", program, str(characters)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return int(out.splitlines()[-1])

    assert peak(7_000_000) - peak(10_000) < 100_000  # KiB; it was 800,000


@pytest.mark.parametrize("cached", [False, True])
def test_a_model_that_cannot_be_loaded(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    """The error is one line with the folder; the remedy is never to remove one that the user names."""
    monkeypatch.setenv("UPSERT_CLI_MODEL_CACHE", str(tmp_path))
    folder = tmp_path / ("models--sentence-transformers--all-MiniLM-L6-v2" if cached else "mine")
    shutil.copytree(model.folder, folder)
    (folder / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(UpsertCliError) as caught:
        load_model(find_model(model.name, given=None if cached else GivenFolder(path=folder)))
    assert ("remove the folder" in str(caught.value)) is cached
    assert ("--model-path" in str(caught.value)) is not cached
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_loader_loads_once() -> None:
    """Every caller waits for the loading thread and gets its error; without `begin`, the caller loads."""
    made: list[str] = []

    def load() -> Embedder:
        made.append(threading.current_thread().name)
        raise UpsertCliError(message="it is a test")

    loader = Loader(load)
    loader.begin()
    for _ in range(2):
        with pytest.raises(UpsertCliError, match="it is a test"):
            loader.embedder()
    assert len(made) == 1
    assert made[0].startswith("load")
    with pytest.raises(UpsertCliError):
        Loader(load).embedder()
    assert made[1:] == [threading.current_thread().name]
