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
from upsert_cli.embedding.catalog import ModelEntry
from upsert_cli.embedding.identity import Weights
from upsert_cli.embedding.onnx_graph import read_graph
from upsert_cli.paths import user_cache_folder

DIGEST_CHARACTERS = 32  # hex; 128 bits
KNOWN_FILE = "digests.json"  # in the user's cache folder
MOST_KNOWN = 200  # files; the oldest are forgotten


def weights_of(entry: ModelEntry, folder: Path, *, is_given: bool) -> Weights:
    """Return the weights in a model's folder; those in a given folder are published if the cache has the same.

    Raises:
        OSError: A file cannot be read.
    """
    digest = digest_of(folder, entry.weights)
    if not is_given:
        return Weights(digest, is_published=True)
    is_copy = is_cached(entry.name, entry.files) and digest == digest_of(cached_model(entry.name), entry.weights)
    return Weights(digest, is_published=is_copy)


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
