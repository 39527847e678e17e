"""The graph that we build for the default model: it computes the right numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.support.tiny_model import random_weights, small_config
from upsert_cli.embedding.default_model import FILES, build_bert_graph
from upsert_cli.embedding.identity import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

TEXTS = [
    "hello world",
    "",
    "Ünïcödé, 漢字, emoji 🙂 and control \x07 characters",
    "A sentence of usual length, as in a catalogue of articles.",
    "word " * 120,
    "a text that is much longer than the limit of the model " * 60,
]

# Published for this model: the first by fastembed's tests, the second by the original implementation.
PUBLISHED = {
    "hello world": [-0.034477, 0.031023, 0.006735, 0.026109, -0.039362],
    "This is an example sentence": [0.06765693, 0.06349593, 0.04871314, 0.07930495, 0.03744806],
}


def embed(model: Model, texts: Sequence[str]) -> Array:
    """Embed texts with fastembed, all in one batch."""
    from fastembed import TextEmbedding

    embedding = TextEmbedding(model.name, specific_model_path=str(model.folder), threads=1, cuda=False)
    return np.asarray(list(embedding.embed(list(texts), batch_size=len(texts))), dtype=np.float32)


def test_vectors_equal_published_ones(model: Model) -> None:
    """Loaded by fastembed, our graph gives the numbers that others publish for this model."""
    vectors = embed(model, list(PUBLISHED))
    np.testing.assert_allclose(vectors[:, :5], list(PUBLISHED.values()), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_vectors_equal_chromas(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chroma's default embedding function, with its own tokenizing and pooling, gives the same vectors."""
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


def reference(tensors: Mapping[str, Array], config: Mapping[str, Any], ids: list[int], types: list[int]) -> Any:
    """Compute an encoder's output for one text without padding, by the formulas of the paper, in float64."""
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
        names = ("query", "key", "value")
        by_head = [np.split(dense(x, f"{layer}.attention.self.{name}"), heads, -1) for name in names]
        mixed = []
        for query, key, value in zip(*by_head, strict=True):
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
    """The graph, optimised by onnxruntime, agrees with the formulas for any number of layers and heads."""
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
