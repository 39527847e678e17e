"""Other programs in a Chroma folder: any lines with plain chromadb, and records with every type of metadata."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.support.forked import run_python
from tests.support.terminal import Terminal

ROWS = 300
_WRITE = """
collection = client.get_or_create_collection({collection!r}, embedding_function=None)
records = json.load(sys.stdin)
for start in range(0, len(records), 100):
    part = records[start:start + 100]
    collection.upsert(
        ids=[one["id"] for one in part], documents=[one["document"] for one in part],
        metadatas=[one["metadata"] for one in part], embeddings=[one["vector"] for one in part],
    )
"""


def plain_chroma(terminal: Terminal, code: str, *, folder: str = "chroma", given: Any = None) -> Any:
    """Run lines of Python with plain chromadb in another process, and return the JSON that they print, if any.

    Args:
        terminal: The command's working folder and environment.
        code: The lines; `client` has the folder open, and `json` and `sys` are imported.
        folder: The Chroma folder.
        given: Written to standard input as JSON.
    """
    start = f"import json, sys\nimport chromadb\nclient = chromadb.PersistentClient({folder!r})\n"
    done = run_python(
        [sys.executable, "-c", start + code],
        folder=terminal.folder,
        environment=terminal.environment,
        stdin=json.dumps(given).encode(),
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout or b"null")


def some_records(count: int, *, mark: str = "first") -> list[dict[str, Any]]:
    """Return records such as another program writes, with every type of metadata that Chroma stores."""
    return [
        {
            "id": f"doc {number}",
            "document": f"{mark} document number {number}",
            "metadata": {
                "number": number,
                "exact": number / 7,
                "even": number % 2 == 0,
                "source": "a/b.pdf",
                "tags": ["x", "y"],
                "pages": [1, 2, number],
                "loc.lines.from": number,
                "text": f"a text of its own {number}",
                "vector": [0.5, 0.25],
                "item_info.url": "https://example.org/",
            },
            "vector": [1.0, number % 13 + 0.1, -(number % 7) / 3],
        }
        for number in range(count)
    ]


def write_records(
    terminal: Terminal, records: list[dict[str, Any]], *, folder: str = "old", collection: str = "docs"
) -> None:
    """Write records as another program does, in another process."""
    plain_chroma(terminal, _WRITE.format(collection=collection), folder=folder, given=records)


def without_hash(records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the documents and metadata of records, without this tool's own key."""
    return {
        one: (record["document"], {key: value for key, value in (record["metadata"] or {}).items() if key != "upsert_hash"})
        for one, record in records.items()
    }  # fmt: skip


def as_written(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the same of records that were written."""
    return {one["id"]: (one["document"], one["metadata"] or {}) for one in records}


def floats_rounded(records: dict[str, Any]) -> dict[str, Any]:
    """Round the floats, since Chroma may store them with another last digit."""
    return {
        one: (document, {key: round(value, 12) if isinstance(value, float) else value for key, value in metadata.items()})
        for one, (document, metadata) in records.items()
    }  # fmt: skip
