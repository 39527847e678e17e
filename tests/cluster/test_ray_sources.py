"""Collections, items with vectors and models of one's own on Ray: each load ends as the local one does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.chroma_server import ChromaServer
from tests.support.other_program import some_records, write_records
from tests.support.raylets import Raylets
from tests.support.records import assert_same
from tests.support.terminal import Terminal
from upsert_cli.sources.rows import UNIT_ROWS


def _load_twice(terminal: Terminal, server: ChromaServer, cluster: Raylets, load: str, *, bits: bool) -> dict[str, Any]:
    """Load locally and on Ray, compare both collections, bits of vectors if asked, and return the counts on Ray."""
    terminal.type(f"{load} --chroma {server.url} --collection local --task-id local")
    line = f"{load} --chroma {server.url} --engine ray --ray-address {cluster.address} --workers 2"
    terminal.type(f"{line} --collection ray --task-id ray")
    assert_same(server.records("ray"), server.records("local"), tolerance=0.0 if bits else 1e-5)
    task = terminal.info("ray")
    assert task["counts"] == terminal.info("local")["counts"]
    counts: dict[str, Any] = task["counts"]
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "server"])
@pytest.mark.parametrize("options", ["", "--keep-vectors", """--where '{"number": {"$lt": 5000}}'"""])
def test_a_collection_is_divided(
    tiny: Terminal, server: ChromaServer, raylets: Raylets, place: str, options: str
) -> None:
    """Two raylets load a collection of several units, from a folder and from a server, with its vectors and without."""
    raylets.have(2)
    records = some_records(2 * UNIT_ROWS + 100)
    write_records(tiny, records)
    source = "chroma:old#docs"
    if place == "server":
        tiny.type(f"upsert-cli run {source} --keep-vectors --chroma {server.url} --collection docs")
        source = f"chroma:{server.url}#docs"
    counts = _load_twice(tiny, server, raylets, f"upsert-cli run {source} {options}", bits="keep" in options)
    assert counts["inserted"] == (5_000 if "where" in options else len(records))
    restarted = f"upsert-cli run {source} {options} --chroma {server.url} --collection ray --engine ray"
    tiny.type(f"{restarted} --ray-address {raylets.address} --task-id again")
    assert tiny.info("again")["counts"]["unchanged"] == counts["inserted"]


@pytest.mark.slow
def test_chunks_are_joined_by_workers(tiny: Terminal, server: ChromaServer, raylets: Raylets) -> None:
    """An item whose chunks are in the ranges of two workers is loaded once, and whole."""
    raylets.have(2)
    items = [
        {"object_id": f"i{row}", "payload": {"text": " ".join(f"word{each} of text {row}." for each in range(60))}}
        for row in range(1_500)
    ]
    tiny.write("a.jsonl", items)
    tiny.type("upsert-cli run a.jsonl --chroma there --collection chunks --split --max-tokens 64")
    assert len(tiny.records("chunks", folder="there")) > 2 * UNIT_ROWS
    counts = _load_twice(tiny, server, raylets, "upsert-cli run chroma:there#chunks", bits=False)
    assert counts["inserted"] == len(items)


@pytest.mark.slow
def test_items_with_vectors_need_no_model(tiny: Terminal, server: ChromaServer, raylets: Raylets) -> None:
    """On Ray too, `--model none` loads the items' own vectors in their own dimension."""
    raylets.have(2)
    vectors = [[1.0, float(row % 7), float(row % 13)] for row in range(UNIT_ROWS + 100)]
    items = [{"object_id": f"i{row}", "payload": {"vector": vector, "n": row}} for row, vector in enumerate(vectors)]
    tiny.write("a.jsonl", items)
    del tiny.env["UPSERT_CLI_RUN_MODEL_PATH"]
    counts = _load_twice(tiny, server, raylets, "upsert-cli run a.jsonl --model none --offline", bits=True)
    assert counts["inserted"] == len(items)


@pytest.mark.slow
def test_a_model_of_ones_own(terminal: Terminal, tiny_model: Path, server: ChromaServer, raylets: Raylets) -> None:
    """Workers load a model that fastembed does not list from its folder, with the pooling that was given."""
    raylets.have(2)
    folder = shutil.copytree(tiny_model, terminal.folder / "mine")
    write_records(terminal, some_records(UNIT_ROWS + 100))
    load = f"upsert-cli run chroma:old#docs --model my-org/my-model --model-path {folder} --pooling cls"
    counts = _load_twice(terminal, server, raylets, load, bits=False)
    assert counts["inserted"] == UNIT_ROWS + 100
