"""The digest of a model's files changes with the vectors, and each file is read for it once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from upsert_cli.embedding.weights import KNOWN_FILE, digest_of


def _graph() -> bytes:
    """Return a graph whose weights are in another file."""
    import onnx
    from onnx import external_data_helper, helper

    tensor = helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], b"0000", raw=True)
    external_data_helper.set_external_data(tensor, location="model.onnx_data")
    tensor.ClearField("raw_data")
    output = helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [1])
    graph: bytes = helper.make_model(helper.make_graph([], "g", [], [output], [tensor])).SerializeToString()
    return graph


FILES = {
    "model.onnx": _graph(),
    "model.onnx_data": b"numbers",
    "tokenizer.json": b"{}",
    "config.json": b"{}",
    "model.onnx.bak": b"old",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a model, with a separate home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return _made(tmp_path / "model")


def _made(folder: Path) -> Path:
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return folder


def _digest(folder: Path) -> str:
    return digest_of(folder, ["model.onnx"])


@pytest.mark.parametrize("name", FILES)
def test_the_digest_is_that_of_everything_that_decides_a_vector(folder: Path, tmp_path: Path, name: str) -> None:
    """The digest changes only with the graph, its external data and the tokenizer, not with the folder."""
    before = _digest(folder)
    assert _digest(_made(tmp_path / "other")) == before
    # An empty text as the graph's documentation, and a space in the other files.
    (folder / name).write_bytes(FILES[name] + (b"\x32\x00" if name == "model.onnx" else b" "))
    assert (_digest(folder) != before) is (name in ("model.onnx", "model.onnx_data", "tokenizer.json"))


def test_unchanged_files_are_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second digest comes from the user's cache, until a file is touched."""
    before = _digest(folder)
    read: list[object] = []
    file_digest = hashlib.file_digest

    def seen(file: Any, kind: str) -> Any:
        read.append(file)
        return file_digest(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", seen)
    assert (_digest(folder), read) == (before, [])
    # Of the same size and with the same time, as a tool may leave it.
    status = (folder / "model.onnx_data").stat()
    (folder / "model.onnx_data").write_bytes(b"NUMBERS")
    os.utime(folder / "model.onnx_data", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert _digest(folder) != before
    assert len(read) == 1


@pytest.mark.parametrize("content", ["half a", "[]", '{"1": 2}', ""])
def test_a_damaged_cache_only_costs_time(folder: Path, tmp_path: Path, content: str) -> None:
    """Files are read again if the kept digests cannot be read or written."""
    before = _digest(folder)
    (tmp_path / "cache" / "upsert-cli" / KNOWN_FILE).write_text(content)
    assert _digest(folder) == before


def test_no_cache_is_needed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be kept, the digest is the same."""
    before = _digest(folder)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "below"))
    assert _digest(folder) == before
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/nonexistent")
    assert _digest(folder) == before
