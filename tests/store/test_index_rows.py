"""The rows of an index against the records: no sound collection is called damaged."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.loading import DIMENSION, a_target, numbered, plain_client
from upsert_cli.errors import TargetDamaged
from upsert_cli.store.chroma.index_files import IndexFiles, saved_ids

CONFIGURATION: Any = {"hnsw": {"sync_threshold": 50, "batch_size": 10}}


def _vectors(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, DIMENSION)).astype(np.float32)


def test_a_collection_of_another_program_is_sound(tmp_path: Path) -> None:
    """Never flushed, half flushed, with rows deleted, replaced and added again, or with none left: not damaged."""
    target, folder = a_target(tmp_path), tmp_path / "chroma"
    first, second = numbered(0, 130), numbered(130, 170)
    with plain_client(target) as client:
        made = client.create_collection("default", embedding_function=None, configuration=CONFIGURATION)
        steps: list[Callable[[], object]] = [
            lambda: made.add(first[:30], _vectors(30)),
            lambda: made.add(first[30:], _vectors(100)),
            lambda: made.delete(first[:20]),
            lambda: made.add(second, _vectors(40)),
            lambda: made.upsert(second, _vectors(40)),
            lambda: made.update(second, metadatas=[{"n": 1}] * 40),
            lambda: made.delete(second),
            lambda: made.add(second, _vectors(40)),
            lambda: made.delete(made.get()["ids"]),
            lambda: made.add(first, _vectors(130)),
        ]
        IndexFiles(folder, target.collection).check_rows(target)
        for step in steps:
            step()
            IndexFiles(folder, target.collection).check_rows(target)


def test_deleted_rows_do_not_hide_lost_ones(tmp_path: Path) -> None:
    """The index counts deleted rows too; an older index with as many rows as there are records still lacks some."""
    target, folder = a_target(tmp_path), tmp_path / "chroma"
    with plain_client(target) as client:
        made = client.create_collection("default", embedding_function=None, configuration=CONFIGURATION)
        made.add(numbered(0, 100), _vectors(100))
        (header,) = folder.glob("*/header.bin")
        shutil.copytree(header.parent, tmp_path / "older")
        made.delete(numbered(0, 50))
        made.add(numbered(100, 150), _vectors(50))
    IndexFiles(folder, target.collection).check_rows(target)
    shutil.copytree(tmp_path / "older", header.parent, dirs_exist_ok=True)
    with pytest.raises(TargetDamaged, match="lacks 50 of 100"):
        IndexFiles(folder, target.collection).check_rows(target)


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    """A pickle that names a function is read as plain data or not at all, and garbage gives no ids."""

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "touched",)

    path = tmp_path / "index_metadata.pickle"
    for content in (pickle.dumps({"id_to_label": {"a": 1}, "x": Evil()}), b"", b"garbage", pickle.dumps([1])):
        path.write_bytes(content)
        assert saved_ids(path) is None or saved_ids(path) == {"a"}
    assert not (tmp_path / "touched").exists()
    path.write_bytes(pickle.dumps({"id_to_label": {"a": 1, "b": 2}}))
    assert saved_ids(path) == {"a", "b"}
