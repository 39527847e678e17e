"""A collection that we load is anybody's: a plain Chroma client queries it without any setting."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.terminal import SAMPLES, Terminal
from upsert_cli.embedding.identity import Model

_QUERY = """
import json, sys
import chromadb
collection = chromadb.PersistentClient(sys.argv[1]).get_collection("default")
print(json.dumps(collection.query(query_texts=sys.argv[2:], n_results=3)["ids"]))
"""


@pytest.fixture
def home_with_chromas_model(terminal: Terminal, model: Model) -> Path:
    """Return a home in which Chroma finds the model of its default function, as after its own download."""
    home = terminal.folder / "home"
    place = home / ".cache" / "chroma" / "onnx_models" / "all-MiniLM-L6-v2" / "onnx"
    place.mkdir(parents=True)
    for path in model.folder.iterdir():
        shutil.copy(path, place)
    (place / "vocab.txt").write_text("")  # looked for, and not read
    terminal.env["HOME"] = str(home)
    return home


def test_a_plain_client_finds_what_was_loaded(terminal: Terminal, home_with_chromas_model: Path) -> None:
    """A plain client's `query(query_texts=...)` gives sensible answers."""
    items = [json.loads(line) for line in (SAMPLES / "articles.jsonl").read_text().splitlines()[::2]]
    topics = {item["object_id"]: item["payload"]["topic"] for item in items}
    terminal.write("articles.jsonl", items)
    terminal.type("upsert-cli run articles.jsonl")
    done = subprocess.run(
        [sys.executable, "-c", _QUERY, "chroma", "planets and stars in the night sky", "how to bake bread at home"],
        cwd=terminal.folder,
        env=terminal.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    sky, bread = json.loads(done.stdout)
    assert [topics[identifier] for identifier in sky].count("astronomy") >= 2
    assert [topics[identifier] for identifier in bread].count("cooking") >= 2
