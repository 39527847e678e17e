"""Tasks, checkpoints and rejects to put into a journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from upsert_cli.counts import Counts
from upsert_cli.journal.progress import Checkpoint
from upsert_cli.journal.segments import Segment
from upsert_cli.journal.task import Task, TaskStatus

MOMENT = "2026-11-23T21:03:12Z"


def make_task(task_id: str = "t", **fields: Any) -> Task:
    """Return a pending task."""
    made: dict[str, Any] = {
        "id": task_id,
        "status": TaskStatus.PENDING,
        "created_at": MOMENT,
        "updated_at": MOMENT,
        "kind": "default",
        "collection": "default",
        "chroma": "/data/chroma",
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "sources": ("/data/a.jsonl",),
        "total": 100,
    }
    return Task(**(made | fields))


def make_checkpoint(rows: int, *, rejects_bytes: int = 0, failed: int = 0) -> Checkpoint:
    """Return a checkpoint after `rows` rows, all of them inserted except those that failed."""
    return Checkpoint(
        position={"source": 0, "row": rows, "offset": 10 * rows},
        rows=rows,
        counts=Counts(read=rows, inserted=rows - failed, failed=failed),
        rejects_bytes=rejects_bytes,
    )


def make_reject(number: int) -> dict[str, Any]:
    """Return a reject in the shape of the contract."""
    return {
        "object_id": f"obj-{number}",
        "payload": {"text": ""},
        "item_info": None,
        "detail": "payload.text is empty",
        "failure_stage": "on_reading",
        "source": "a.jsonl",
        "row": number,
    }


def segment_at(folder: Path, number: int) -> Segment:
    """Return a segment of a journal, to put many tasks into it at once."""
    return Segment(folder, number, warn=print)
