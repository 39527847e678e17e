"""Who runs a task, and how far it is: the lease of a task, and its checkpoint."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from upsert_cli.atomic import make_folder, read_whole, replace_file
from upsert_cli.counts import Counts
from upsert_cli.errors import TaskRunning
from upsert_cli.journal.state_files import reading_from, writing_to
from upsert_cli.locks import Holder, Lease, LeaseHeld


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How far a task is: every row below it is settled."""

    position: dict[str, Any]
    """Where to read on; opaque here."""

    rows: int = 0
    counts: Counts = field(default_factory=Counts)
    converted: int = 0
    rejects_bytes: int = 0
    """Length of the rejects file; what lies beyond is from rows that will be read again."""

    retried: int | None = None
    """Rows of the retry file that are settled; None in an attempt that reads all rows."""

    missing: int | None = None
    """Records on the list of those to delete in the end; None where no list was made."""

    unlisted: int = 0
    """Records at the beginning of that list that are settled."""

    saved_at: str | None = field(default=None, compare=False)
    """UTC; None in a checkpoint of an older version, and in one that was never saved."""

    @classmethod
    def at_start(cls, position: dict[str, Any]) -> Checkpoint:
        """Returns the checkpoint of a task of which nothing is settled."""
        return cls(position=position)

    def as_json(self) -> dict[str, Any]:
        """Returns the checkpoint as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Checkpoint:
        """Reads what `as_json` wrote; keys that are unknown, of a newer version, are ignored."""
        return cls(
            position=dict(value["position"]),
            rows=int(value["rows"]),
            counts=Counts.from_json(value["counts"]),
            converted=int(value["converted"]),
            rejects_bytes=int(value["rejects_bytes"]),
            retried=None if value.get("retried") is None else int(value["retried"]),
            missing=None if value.get("missing") is None else int(value["missing"]),
            unlisted=int(value.get("unlisted", 0)),
            saved_at=None if value.get("saved_at") is None else str(value["saved_at"]),
        )


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Returns the checkpoint in a progress file; None where there is none, or a torn one."""
    try:
        with reading_from(path):
            checksum, _, text = read_whole(path).partition(b" ")
        return Checkpoint.from_json(json.loads(text)) if checksum == _checksum(text) else None
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replaces a progress file, and leaves it to the system when the disk has it: a torn one reads as none."""
    text = json.dumps(checkpoint.as_json()).encode("ascii")
    with writing_to(path):
        replace_file(path, _checksum(text) + b" " + text, durable=False)


def take_task_lease(path: Path, task_id: str) -> Lease:
    """Takes the lease of a task, for as long as it is not released and this process lives.

    Raises:
        TaskRunning: Somebody has it.
    """
    with writing_to(path):
        make_folder(path.parent)
        try:
            return Lease.take(path, Holder.this_process(task_id))
        except LeaseHeld as error:
            raise TaskRunning(task_id=task_id, holder=str(error.holder)) from error


def _checksum(text: bytes) -> bytes:
    # It has to tell a torn file from a whole one, not to withstand an attacker.
    return b"%08x" % zlib.crc32(text)
