"""Collections of servers as sources, and copies from and to servers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from tests.support.chroma_server import ChromaServer
from tests.support.other_program import ROWS, as_written, floats_rounded, some_records, without_hash
from tests.support.terminal import Terminal


def test_vectors_survive_a_move_to_a_server_and_back(
    terminal: Terminal, old_folder: Path, shared_server: ChromaServer
) -> None:
    """Folder, server, folder: ids, documents, metadata and vectors are equal, and no model is looked for."""
    shutil.copytree(old_folder, terminal.folder / "old")
    terminal.env["UPSERT_CLI_MODEL_CACHE"] = str(terminal.folder / "none")
    url = shared_server.url
    terminal.type(f"upsert-cli run chroma:old#docs --keep-vectors --chroma {url} --collection moved")
    terminal.type(f"upsert-cli run chroma:{url}#moved --keep-vectors --collection docs --verify")
    terminal.type("upsert-cli run chroma:old#docs --keep-vectors --collection docs --offline")
    assert "300 unchanged" in terminal.type("upsert-cli info latest").stdout
    records = some_records(ROWS)
    for stored in (shared_server.records("moved"), terminal.records("docs", vectors=True)):
        assert floats_rounded(without_hash(stored)) == floats_rounded(as_written(records))
        for record in records:
            assert np.array_equal(np.float32(stored[record["id"]]["vector"]), np.float32(record["vector"]))
