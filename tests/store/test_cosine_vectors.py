"""Vectors that a cosine index returned are returned by the next one bit by bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.loading import a_target, plain_client
from upsert_cli.store.chroma.cosine_vectors import returned, to_be_returned

ROWS = 300


def some_vectors(dimension: int, *, unit: bool) -> np.ndarray:
    vectors = np.random.default_rng(dimension).standard_normal((ROWS, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if unit else vectors


@pytest.mark.parametrize("dimension", [3, 384, 1_536])
@pytest.mark.parametrize("unit", [True, False])
def test_a_returned_vector_is_returned_again(dimension: int, unit: bool) -> None:
    """Next to each vector that an index returned is one that the index returns unchanged."""
    wanted = returned(some_vectors(dimension, unit=unit))
    chosen = to_be_returned(wanted)
    assert (returned(wanted) != wanted).any()  # the plain copy would differ
    assert np.array_equal(returned(chosen), wanted)
    assert np.abs(chosen - wanted).max() < 1e-6


def test_chromas_index_computes_as_we_do(tmp_path: Path) -> None:
    """If this fails, a new version of Chroma computes lengths differently, and copies differ in the last bits."""
    vectors = some_vectors(384, unit=False)
    with plain_client(a_target(tmp_path)) as client:
        collection = client.create_collection(
            "cosine", configuration={"hnsw": {"space": "cosine"}}, embedding_function=None
        )
        collection.add(ids=[str(number) for number in range(ROWS)], embeddings=vectors)
        got = np.asarray(collection.get(include=["embeddings"])["embeddings"], dtype=np.float32)
    assert np.array_equal(got, returned(vectors))


def test_other_vectors_stay_as_they_are() -> None:
    """Zeros, and vectors for which no neighbor is returned, are left to the index."""
    odd = np.array([[0.0, 0.0], [3.0e-39, 1.0e-38], [np.inf, 1.0]], dtype=np.float32)
    assert np.array_equal(to_be_returned(odd), odd)
