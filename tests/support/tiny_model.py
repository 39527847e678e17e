"""A one-layer encoder with random weights and the real tokenizer: for tests and benchmarks in which speed matters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from upsert_cli.embedding.bert_graph import build_bert_graph
from upsert_cli.embedding.models import Model

INNER = 64  # numbers between the two halves of a layer; the real model has 1,536

Tensor = np.ndarray[Any, np.dtype[np.float32]]


def build_tiny_model(model: Model, folder: Path) -> Path:
    """Fills a folder with what `--model-path` takes, and returns it.

    Args:
        model: Lends the tokenizer and the settings; has as many numbers a vector, and the same name.
        folder: Is there, and empty.
    """
    config = json.loads((model.folder / "config.json").read_text())
    config |= {"num_hidden_layers": 1, "intermediate_size": INNER}
    for path in model.folder.glob("*.json"):
        shutil.copy(path, folder)
    (folder / "model.onnx").write_bytes(build_bert_graph(_tensors(config), config).SerializeToString())
    return folder


def choking_model(tiny_model: Path, folder: Path, word: str) -> Path:
    """Fills a new folder with a tiny model that makes no numbers of texts with a word, and returns it."""
    import onnx
    from onnx import numpy_helper
    from tokenizers import Tokenizer

    shutil.copytree(tiny_model, folder)
    token = Tokenizer.from_file(str(tiny_model / "tokenizer.json")).token_to_id(word)
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if values.ndim == 2 and values.shape[0] > token:
            values[token] = np.nan
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, folder / "model.onnx")
    return folder


def _tensors(config: dict[str, Any]) -> dict[str, Tensor]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    random = np.random.default_rng(0)

    def weights(*shape: int) -> Tensor:
        return random.normal(0, 0.05, shape).astype(np.float32)

    def norm(prefix: str) -> dict[str, Tensor]:
        return {f"{prefix}.weight": np.ones(hidden, np.float32), f"{prefix}.bias": np.zeros(hidden, np.float32)}

    def dense(prefix: str, rows: int, columns: int) -> dict[str, Tensor]:
        return {f"{prefix}.weight": weights(rows, columns), f"{prefix}.bias": weights(rows)}

    layer = "encoder.layer.0"
    return {
        "embeddings.word_embeddings.weight": weights(config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": weights(config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": weights(config["type_vocab_size"], hidden),
        **norm("embeddings.LayerNorm"),
        **dense(f"{layer}.attention.self.query", hidden, hidden),
        **dense(f"{layer}.attention.self.key", hidden, hidden),
        **dense(f"{layer}.attention.self.value", hidden, hidden),
        **dense(f"{layer}.attention.output.dense", hidden, hidden),
        **norm(f"{layer}.attention.output.LayerNorm"),
        **dense(f"{layer}.intermediate.dense", inner, hidden),
        **dense(f"{layer}.output.dense", hidden, inner),
        **norm(f"{layer}.output.LayerNorm"),
    }
