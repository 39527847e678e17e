"""The digest of a model's files: of the weights and the tokenizer, which decide every vector.

The other files do not count. They may change the token limit, which is a part of the identity by itself, and padding,
on which no vector depends. Reading the files is spared as long as nobody touches them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from upsert_cli.atomic import write_out
from upsert_cli.embedding.cache import cached_model, is_cached
from upsert_cli.embedding.catalog import DEFAULT_MODEL, ModelEntry
from upsert_cli.embedding.identity import Weights
from upsert_cli.embedding.onnx_graph import read_graph, read_tensors
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
"""Of `_Known.tensors` of the graph that is built from the checkpoint: its file differs between versions of onnx."""


def weights_of(entry: ModelEntry, folder: Path, *, is_given: bool) -> Weights:
    """Return the weights in a model's folder.

    Those in a given folder are published if the cache has the same, or if they are known as the default model's.

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
    """Check that a folder has the default model in a published form."""
    known = _Known()
    if known.digest(folder / "tokenizer.json") not in _PUBLISHED_TOKENIZERS:
        return False
    path = folder / graph
    is_published = known.digest(path) in _PUBLISHED_GRAPHS or known.tensors(path) == _PUBLISHED_TENSORS
    known.keep()
    return is_published


def digest_of(folder: Path, weights: Sequence[str]) -> str:
    """Return the digest of a model's weights, with the external data that they name, and of its tokenizer.

    Raises:
        OSError: A file cannot be read.
    """
    known = _Known()
    graphs = [folder / name for name in weights]
    listed = dict.fromkeys(graphs)  # in this order; a file with external data is there once
    for graph in graphs:
        listed |= dict.fromkeys(known.external_files(graph))
    digests = [known.digest(path) for path in (*listed, folder / "tokenizer.json")]
    known.keep()
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:DIGEST_CHARACTERS]


class _Known:
    """The digests of files that were read before, by everything that changes when a file does."""

    def __init__(self) -> None:
        folder = user_cache_folder()
        self._path = None if folder is None else folder / KNOWN_FILE
        self._entries: dict[str, Any] = {}
        self._is_changed = False
        with suppress(OSError, ValueError):  # without it, the files are read again
            content = json.loads(self._path.read_bytes()) if self._path is not None else {}
            self._entries = content if isinstance(content, dict) else {}

    def digest(self, path: Path) -> str:
        """Return the digest of a file."""
        return str(self._entry(path)["digest"])

    def external_files(self, path: Path) -> Iterator[Path]:
        """Yield the files with the external data that a graph names."""
        for name in self._entry(path)["external"]:
            if (external := path.parent / name).is_file():
                yield external

    def tensors(self, path: Path) -> str:
        """Return the digest of the weights that a graph's file holds, by name, however the file was written."""
        entry = self._entry(path)
        if "tensors" not in entry:
            digests = []
            with suppress(ValueError):  # it is no graph; loading it says so
                digests = sorted(f"{name} {hashlib.sha256(found).hexdigest()}" for name, found in read_tensors(path))
            entry["tensors"] = hashlib.sha256("\n".join(digests).encode()).hexdigest()
            self._is_changed = True
        return str(entry["tensors"])

    def keep(self) -> None:
        """Save the digests that are new."""
        if self._path is None or not self._is_changed:
            return
        newest = dict(list(self._entries.items())[-MOST_KNOWN:])
        with suppress(OSError):  # a cache that cannot be written costs time and nothing else
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_out(self._path, json.dumps(newest, indent=0))

    def _entry(self, path: Path) -> dict[str, Any]:
        with path.open("rb") as file:
            key = _state(file.fileno())
            entry = self._entries.get(key)
            if isinstance(entry, dict) and {"digest", "external"} <= entry.keys():
                return entry
            made = {"digest": hashlib.file_digest(file, "sha256").hexdigest(), "external": _external_names(path)}
            if _state(file.fileno()) == key:  # otherwise somebody writes to it now
                self._entries[key] = made
                self._is_changed = True
            return made


def _state(descriptor: int) -> str:
    status = os.fstat(descriptor)
    # With the time of the last change of the inode, which no program can set back.
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return "-".join(map(str, (status.st_dev, status.st_ino, status.st_size, *times)))


def _external_names(path: Path) -> list[str]:
    """Return the names of the files with the external data of a graph; a table of vectors has none."""
    try:
        return list(read_graph(path).external_files)
    except ValueError:  # it is no graph
        return []
