"""Embedding equals fastembed's own in any order, with any neighbors and threads; a bad text costs only its own row."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.terminal import SAMPLES
from upsert_cli.documents.recipe import Recipe
from upsert_cli.embedding.embedder import Effort, Embedder, load_model
from upsert_cli.embedding.identity import Model
from upsert_cli.errors import Stage, UpsertCliError
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.batches import Pace, read_batches
from upsert_cli.pipeline.embed import embed
from upsert_cli.sources.find import find_files
from upsert_cli.sources.rows import Rows
from upsert_cli.sources.source import Source
from upsert_cli.store.base import Comparison, Verdict


@pytest.fixture(scope="module")
def embedder(model: Model) -> Embedder:
    """Returns the real model."""
    return load_model(model)


def _batches(path: Path, rows: int) -> list[Batch]:
    sources = [Source.of(found) for found in find_files([str(path)])]
    return list(read_batches(Rows(sources=sources), recipe=Recipe(identity="t"), pace=Pace(rows)))


def _written(folder: Path, texts: list[str]) -> Path:
    path = folder / "a.jsonl"
    lines = (json.dumps({"object_id": str(row), "payload": {"text": text}}) for row, text in enumerate(texts))
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def _embed(batches: list[Batch], load: Callable[[], Embedder], *, verdict: Verdict = Verdict.NEW) -> list[Batch]:
    def plans() -> Iterator[Batch]:
        for batch in batches:
            rows = len(batch.documents)
            yield replace(batch, comparison=Comparison(verdicts=[verdict] * rows))

    return list(embed(plans(), load=load, effort=Effort(threads=2, budget=512), stopping=threading.Event()))


def test_vectors_are_fastembeds_own(embedder: Embedder, model: Model) -> None:
    """Each text gets the vector that fastembed gives it alone, in the order of the rows, long texts included."""
    from fastembed import TextEmbedding

    batch = _batches(SAMPLES / "articles.jsonl", 60)[0]
    (embedded,) = _embed([batch], lambda: embedder)
    assert embedded.vectors.keys() == set(range(60))
    own = TextEmbedding(model.name, specific_model_path=str(model.folder))
    for row in range(0, 60, 7):
        expected = next(iter(own.embed([batch.documents[row].text])))
        np.testing.assert_allclose(embedded.vectors[row], expected, atol=1e-5)


def test_cut_texts_are_counted_by_the_tokenizer(embedder: Embedder, tmp_path: Path) -> None:
    """A text of as many tokens as the limit is whole, one more is cut; very long texts are no different."""
    limit = embedder.max_tokens
    texts = ["a " * (limit - 2), "a " * (limit - 1), "a " * 100_000, " " * 100_000 + "a", "short"]
    (embedded,) = _embed(_batches(_written(tmp_path, texts), 10), lambda: embedder)
    assert embedded.truncated == 2
    np.testing.assert_allclose(embedded.vectors[1], embedded.vectors[2], atol=1e-5)


def test_unchanged_rows_load_no_model(tmp_path: Path) -> None:
    """Where nothing is new the model is not even loaded."""

    def load() -> Embedder:
        raise AssertionError("the model was loaded")

    batches = _batches(_written(tmp_path, ["a", "b"]), 10)
    for verdict in (Verdict.UNCHANGED, Verdict.METADATA):
        (embedded,) = _embed(batches, load, verdict=verdict)
        assert not embedded.vectors
        assert embedded.upserts().vectors is None


class _Fake:
    """A stand-in for a model that fails, which no real one does on demand."""

    max_tokens = 8
    dimension = 3

    def __init__(self, bad: Callable[[str], bool]) -> None:
        self.bad = bad
        self.embedded: list[str] = []

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def count_query(self, text: str) -> int:
        return self.count([text])[0]

    def embed(self, texts: list[str]) -> Any:
        if any(map(self.bad, texts)):
            raise RuntimeError("node MatMul failed")
        self.embedded += texts
        return np.full((len(texts), 3), 0.5, dtype=np.float32)

    def embed_query(self, text: str) -> Any:
        return self.embed([text])


def test_a_text_that_cannot_be_embedded_costs_just_its_row(tmp_path: Path) -> None:
    """The failing text is found by halving and rejected with its stage; its neighbours are embedded."""
    fake = _Fake(lambda text: text == "text 13")
    (embedded,) = _embed(_batches(_written(tmp_path, [f"text {row}" for row in range(40)]), 64), lambda: fake)
    (reject,) = embedded.failed.values()
    assert (reject.row, reject.stage) == (14, Stage.INFERENCE)
    assert "MatMul" in reject.detail
    assert embedded.vectors.keys() == set(range(40)) - {13}
    assert {vector.shape for vector in embedded.vectors.values()} == {(3,)}


def test_a_model_that_fails_on_every_text_blames_none(tmp_path: Path) -> None:
    """Where a harmless text fails as well, the task stops, and no row is rejected for it."""
    with pytest.raises(UpsertCliError, match="MatMul"):
        _embed(_batches(_written(tmp_path, ["a", "b"]), 10), lambda: _Fake(lambda _: True))


def test_a_repeated_text_is_embedded_once(tmp_path: Path) -> None:
    """Equal texts of different ids share one run through the model."""
    fake = _Fake(lambda _: False)
    (embedded,) = _embed(_batches(_written(tmp_path, ["same", "other", "same"]), 10), lambda: fake)
    assert sorted(fake.embedded) == ["other", "same"]
    assert len(embedded.vectors) == 3
    assert all(vector.any() for vector in embedded.vectors.values())


def test_items_with_a_vector_of_their_own_are_not_embedded(tmp_path: Path) -> None:
    """Own vectors are written unchanged next to the model's; if every row has one, no model is loaded."""

    def load() -> Embedder:
        raise AssertionError("the model was loaded")

    path = tmp_path / "a.jsonl"
    own = [{"text": f"own {row}", "vector": [row + 1, 0.5, -2]} for row in range(3)]

    def write(payloads: list[dict[str, Any]]) -> None:
        rows = enumerate(payloads)
        path.write_text("".join(json.dumps({"object_id": str(row), "payload": one}) + "\n" for row, one in rows))

    write(own)
    for verdict in (Verdict.NEW, Verdict.TEXT):
        (embedded,) = _embed(_batches(path, 10), load, verdict=verdict)
        vectors = embedded.upserts().vectors
        assert vectors is not None
        assert vectors.dtype == np.float32
        assert vectors.tolist() == [one["vector"] for one in own]
    write([{"text": "text 0"}, own[1], {"text": "text 2"}, own[2]])
    fake = _Fake(lambda text: text == "text 2")
    (embedded,) = _embed(_batches(path, 10), lambda: fake)
    rows = embedded.upserts()
    assert rows.vectors is not None
    assert dict(zip(rows.ids, rows.vectors.tolist(), strict=True)) == {
        "0": [0.5, 0.5, 0.5],
        "1": own[1]["vector"],
        "3": own[2]["vector"],
    }
    assert not any(text.startswith("own") for text in fake.embedded)
    assert [*embedded.failed] == ["2"]
