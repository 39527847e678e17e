"""Targets, rows and stores for tests, and a look at a collection with chromadb alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from upsert_cli.embedding.identity import ModelIdentity
from upsert_cli.store.base import Store, WriteBatch
from upsert_cli.store.folder import prepare_folder
from upsert_cli.store.locate import location_of
from upsert_cli.store.target import Opened, Target

if TYPE_CHECKING:
    from chromadb.api import ClientAPI

DIMENSION = 8


def a_target(folder: Path, **changes: Any) -> Target:
    """Return a target in `folder` with changes to the identity of a small model."""
    model = ModelIdentity(name="maker/small-model", dimension=DIMENSION, max_tokens=256)
    path = str(folder / "chroma")
    return Target(path=path, collection="default", model=replace(model, **changes), tool_version="0.0.0")


def of_model(target: Target, **changes: Any) -> Target:
    """Return a target with changes to the identity of its model."""
    return replace(target, model=replace(target.model, **changes))


def some_rows(ids: Sequence[str], *, mark: str = "first", dimension: int = DIMENSION, **metadata: Any) -> WriteBatch:
    """Return a good row for each id; its vector follows from the id and the mark."""
    vectors = [np.random.default_rng([*f"{mark} {one}".encode()]).standard_normal(dimension) for one in ids]
    return WriteBatch(
        ids=list(ids),
        texts=[f"{mark} text of {one}" for one in ids],
        metadatas=[{"name": one, "upsert_hash": f"{mark}.{mark}"} | metadata for one in ids],
        vectors=np.array(vectors, dtype=np.float32).reshape(len(ids), dimension),
    )


def numbered(start: int, stop: int) -> list[str]:
    """Return the ids of some rows."""
    return [f"id-{number:06}" for number in range(start, stop)]


@contextmanager
def plain_client(target: Target) -> Iterator[ClientAPI]:
    """Open a folder as any user of chromadb would."""
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(target.path, settings=Settings.model_construct(anonymized_telemetry=False))
    try:
        yield client
    finally:
        client.close()  # type: ignore[attr-defined]  # of the class that it is


def open_store(target: Target, **options: Any) -> tuple[Store, Opened]:
    """Open a collection in this process, in a folder without other users; `options` are those of `Location.open`."""
    prepare_folder(Path(target.path))
    return location_of(target).open(target, **options)


@contextmanager
def opened(target: Target, *, flush: bool = True, **options: Any) -> Iterator[tuple[Store, Opened]]:
    """Open a collection, and close it in the end as a load that goes well does; without a flush that is faster."""
    store, facts = open_store(target, **options)
    try:
        yield store, facts
    except BaseException:
        store.abandon()
        raise
    if flush:
        store.close()
    else:
        store.abandon()


def read_back(target: Target) -> dict[str, dict[str, Any]]:
    """Return all records of the collection: id -> document, metadata and vector."""
    with plain_client(target) as client:
        collection = client.get_collection(target.collection)
        got = collection.get(include=["documents", "metadatas", "embeddings"])
        count = collection.count()
    columns = zip(
        got["ids"], got["documents"] or [], got["metadatas"] or [], np.asarray(got["embeddings"]), strict=True
    )
    found = {
        one: {"document": document, "metadata": dict(metadata or {}), "vector": vector}
        for one, document, metadata, vector in columns
    }
    assert len(found) == count
    return found


def assert_holds(target: Target, *parts: WriteBatch) -> None:
    """Check that the collection holds exactly these rows, vectors included; later parts replace earlier ones."""
    found = read_back(target)
    wanted: dict[str, tuple[str | None, dict[str, Any], Any]] = {}
    for part in parts:
        assert part.vectors is not None
        for one, text, metadata, vector in zip(part.ids, part.texts, part.metadatas, part.vectors, strict=True):
            wanted[one] = (text, metadata, vector)
    assert found.keys() == wanted.keys()
    for one, (text, metadata, vector) in wanted.items():
        assert found[one]["document"] == text
        assert found[one]["metadata"] == metadata
        np.testing.assert_allclose(found[one]["vector"], vector, rtol=1e-5, atol=1e-6)
