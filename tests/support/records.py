"""Collections as tests read them back, the comparison of two of them, and a look at one that is being written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

Records = dict[str, dict[str, Any]]
"""Document, metadata and perhaps vector by id, as `Terminal.records` and `ChromaServer.records` return them."""


def assert_same(found: Records, expected: Records, *, tolerance: float = 1e-5) -> None:
    """Check that two collections hold the same records.

    Args:
        found: With vectors.
        expected: With vectors.
        tolerance: Between two numbers of a vector; texts of one batch are padded to the longest, which moves last bits.
    """
    assert found.keys() == expected.keys()
    for key in ("document", "metadata"):
        assert {one: record[key] for one, record in found.items()} == {
            one: record[key] for one, record in expected.items()
        }
    vectors, wanted = (np.array([records[one]["vector"] for one in expected]) for records in (found, expected))
    np.testing.assert_allclose(vectors, wanted, rtol=0, atol=tolerance)


def queued_rows(chroma: Path) -> int:
    """Return the number of rows that Chroma's database has queued, without taking a lock."""
    try:
        with closing(sqlite3.connect(f"{(chroma / 'chroma.sqlite3').as_uri()}?mode=ro", uri=True)) as database:
            (count,) = database.execute("SELECT COUNT(*) FROM embeddings_queue").fetchone()
            return int(count)
    except sqlite3.OperationalError:
        return 0  # it is being made
