"""Small encoders with random weights; `build_tiny_model` is a model for tests and benchmarks in which speed matters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from upsert_cli.embedding.default_model import build_bert_graph
from upsert_cli.embedding.identity import Model

if TYPE_CHECKING:
    import onnx

# Rows of the table of words, which tokens share; the real model has 30,522, and reading them is most of a short load.
WORDS = 1021
TOKENS = 8_000  # of the vocabulary, which has the frequent words first; to read all 30,522 takes four times the CPU

Tensors = dict[str, NDArray[np.float32]]


def build_tiny_model(model: Model, folder: Path) -> Path:
    """Fill a folder with a model without layers for `--model-path`, and return the folder.

    Its vectors are the means of random vectors of the words, and of their places.

    Args:
        model: Provides the tokenizer and the settings; the tiny model has its dimension and name.
        folder: An empty folder.
    """
    config = json.loads((model.folder / "config.json").read_text())
    config |= {"num_hidden_layers": 0, "vocab_size": WORDS}
    for path in model.folder.glob("*.json"):
        shutil.copy(path, folder)
    _drop_rare_words(folder / "tokenizer.json")
    graph = build_bert_graph(_tiny_weights(config), config)
    _share_words(graph)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    return folder


def choking_model(tiny_model: Path, folder: Path, word: str) -> Path:
    """Fill a new folder with a tiny model whose vectors are not finite for texts with a word, and return the folder."""
    import onnx
    from onnx import numpy_helper
    from tokenizers import Tokenizer

    shutil.copytree(tiny_model, folder)
    token = Tokenizer.from_file(str(tiny_model / "tokenizer.json")).token_to_id(word)
    assert token is not None
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if values.ndim == 2 and values.shape[0] == WORDS:
            values[token % WORDS] = np.nan
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, folder / "model.onnx")
    return folder


def unloadable_model(tiny_model: Path, folder: Path) -> Path:
    """Fill a new folder with a model of the same weights that nothing can load, and return the folder."""
    shutil.copytree(tiny_model, folder)
    (folder / "config.json").write_bytes(b"no settings")  # which are no part of the weights
    return folder


def tuned_model(tiny_model: Path, folder: Path) -> Path:
    """Fill a new folder with a tiny model whose weights were trained further, and return the folder."""
    import onnx
    from onnx import numpy_helper

    shutil.copytree(tiny_model, folder)
    model = onnx.load(folder / "model.onnx")
    tensor = max(model.graph.initializer, key=lambda one: len(one.raw_data))
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[::-1].copy(), tensor.name))
    onnx.save(model, folder / "model.onnx")
    return folder


def small_config(*, layers: int, heads: int) -> dict[str, Any]:
    """Return the numbers of an encoder that is computed in no time."""
    return {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "hidden_size": 12,
        "intermediate_size": 20,
        "vocab_size": 30,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
    }


def random_weights(config: Mapping[str, Any], *, mean: float = 0.1, spread: float = 0.7, seed: int = 3) -> Tensors:
    """Return random weights under the names of a checkpoint."""
    random = np.random.default_rng(seed)
    return {name: random.normal(mean, spread, shape).astype(np.float32) for name, shape in _shapes(config).items()}


def _drop_rare_words(path: Path) -> None:
    """Leave the frequent words of a tokenizer, and all single characters, so that few texts have an unknown token."""
    tokenizer = json.loads(path.read_text())
    words = tokenizer["model"]["vocab"].items()
    kept = {word: token for word, token in words if token < TOKENS or len(word.removeprefix("##")) == 1}
    tokenizer["model"]["vocab"] = kept
    path.write_text(json.dumps(tokenizer))


def _share_words(model: onnx.ModelProto) -> None:
    """Let each token have the row of the remainder of its number."""
    from onnx import helper, numpy_helper

    graph = model.graph
    (lookup,) = (node for node in graph.node if node.op_type == "Gather" and node.input[1] == "input_ids")
    lookup.input[1] = "word"
    graph.initializer.append(numpy_helper.from_array(np.array(WORDS, np.int64), "words"))
    graph.node.insert(0, helper.make_node("Mod", ["input_ids", "words"], ["word"], name="word"))


def _tiny_weights(config: Mapping[str, Any]) -> Tensors:
    """Return random weights that keep the scale of their inputs, as trained ones do."""
    weights = random_weights(config, mean=0, spread=0.05, seed=0)
    weights["embeddings.LayerNorm.weight"][:] = 1
    weights["embeddings.LayerNorm.bias"][:] = 0
    return weights


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
    }
    norms = ["embeddings.LayerNorm"]
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        square = [f"{layer}.attention.self.{name}" for name in ("query", "key", "value")]
        for name in (*square, f"{layer}.attention.output.dense"):
            shapes |= {f"{name}.weight": (hidden, hidden), f"{name}.bias": (hidden,)}
        shapes |= {f"{layer}.intermediate.dense.weight": (inner, hidden), f"{layer}.intermediate.dense.bias": (inner,)}
        shapes |= {f"{layer}.output.dense.weight": (hidden, inner), f"{layer}.output.dense.bias": (hidden,)}
    for name in norms:
        shapes |= {f"{name}.weight": (hidden,), f"{name}.bias": (hidden,)}
    return shapes
