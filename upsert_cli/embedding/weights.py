"""The digest of a model's weights and tokenizer, on which every vector depends.

The other files may change the token limit, which is a separate part of the identity, and padding, on which no vector
depends. The digests of files are kept, so that unchanged files are read once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from upsert_cli.atomic import write_out
from upsert_cli.embedding.cache import cached_model, is_cached
from upsert_cli.embedding.catalog import DEFAULT_MODEL, ModelEntry
from upsert_cli.embedding.identity import Weights
from upsert_cli.embedding.onnx_graph import read_graph
from upsert_cli.paths import user_cache_folder

DIGEST_CHARACTERS = 32  # hex; 128 bits
KNOWN_FILE = "digests.json"  # in the user's cache folder
MOST_KNOWN = 200  # files; the oldest are forgotten

# The default model in the forms in which it is published, by SHA-256.
TOKENIZER_CHECKSUM = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"  # the checkpoint's
_PUBLISHED_TOKENIZERS = (
    TOKENIZER_CHECKSUM,
    # https://huggingface.co/Qdrant/all-MiniLM-L6-v2-onnx at 5f1b8cd78bc4fb444dd171e59b18f3a3af89a079
    "da0e79933b9ed51798a3ae27893d3c5fa4a201126cef75586296df9b4d2c62a0",
)
_PUBLISHED_GRAPHS = (
    "bbd7b466f6d58e646fdc2bd5fd67b2f5e93c0b687011bd4548c420f7bd46f0c5",  # of the same repository
    # https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, onnx/model.onnx
    "6fd5d72fe4589f189f8ebc006442dbb529bb7ce38f8082112682524616046452",
)
_PUBLISHED_TENSORS = "e82c48a1cb399ca780abf564079573d139234661a22b012fd826a816d51c0662"
"""Of the weights in the graph that is built from the checkpoint: its file differs between versions of onnx."""


def weights_of(entry: ModelEntry, folder: Path, *, is_given: bool) -> Weights:
    """Return the weights in a model's folder.

    Weights in a given folder count as published if the cache has the same, or if they are the default model's.

    Raises:
        OSError: A file cannot be read.
    """
    digest = digest_of(folder, entry.weights)
    is_published = (
        not is_given
        or (is_cached(entry.name, entry.files) and digest == digest_of(cached_model(entry.name), entry.weights))
        or (entry.name == DEFAULT_MODEL and _is_default_model(folder, entry.weights[0]))
    )
    return Weights(digest, is_published=is_published)


def _is_default_model(folder: Path, graph: str) -> bool:
    """Check that a folder holds the default model in a published form."""
    facts = _facts_of(folder / graph)
    is_published = facts["digest"] in _PUBLISHED_GRAPHS or facts["tensors"] == _PUBLISHED_TENSORS
    return is_published and _facts_of(folder / "tokenizer.json")["digest"] in _PUBLISHED_TOKENIZERS


def digest_of(folder: Path, weights: Sequence[str]) -> str:
    """Return the digest of a model's weights, of the external data that they name, and of its tokenizer.

    Raises:
        OSError: A file cannot be read.
    """
    graphs = [folder / name for name in weights]
    external = [graph.parent / name for graph in graphs for name in _facts_of(graph)["external"]]
    # Each file once: the weights may list external data too.
    listed = dict.fromkeys((*graphs, *(path for path in external if path.is_file()), folder / "tokenizer.json"))
    digests = [_facts_of(path)["digest"] for path in listed]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:DIGEST_CHARACTERS]


def _facts_of(path: Path) -> dict[str, Any]:
    """Return the SHA-256 of a file and the facts of a graph, which are kept until the file changes."""
    folder = user_cache_folder()
    known = {} if folder is None else _kept_facts(folder / KNOWN_FILE)
    with path.open("rb") as file:
        state = _state(file.fileno())
        facts = known.get(state)
        if isinstance(facts, dict) and {"digest", "external", "tensors"} <= facts.keys():
            return facts
        facts = {"digest": hashlib.file_digest(file, "sha256").hexdigest()} | _graph_facts(path)
        is_changing = _state(file.fileno()) != state
    if folder is not None and not is_changing:
        newest = dict(list((known | {state: facts}).items())[-MOST_KNOWN:])
        with suppress(OSError):  # a cache that cannot be written costs time and nothing else
            folder.mkdir(parents=True, exist_ok=True)
            write_out(folder / KNOWN_FILE, json.dumps(newest, indent=0))
    return facts


def _kept_facts(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):  # without them, the files are read again
        content = json.loads(path.read_bytes())
        return content if isinstance(content, dict) else {}
    return {}


def _state(descriptor: int) -> str:
    status = os.fstat(descriptor)
    # With the time of the last change of the inode, which no program can set back.
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return "-".join(map(str, (status.st_dev, status.st_ino, status.st_size, *times)))


def _graph_facts(path: Path) -> dict[str, Any]:
    """Return the files with a graph's external data, and the digest of the weights in the file of the graph.

    The digest covers names and bytes, so it does not depend on the form of the file. Other files have neither.
    """
    try:
        graph = read_graph(path)
    except ValueError:  # not a graph
        return {"external": [], "tensors": None}
    tensors = sorted(f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in graph.tensors.items())
    digest = hashlib.sha256("\n".join(tensors).encode()).hexdigest()
    return {"external": list(graph.external_files), "tensors": digest}
