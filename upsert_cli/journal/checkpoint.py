"""How far a task is: its checkpoint, and the file that holds it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from upsert_cli.atomic import read_whole, replace_file
from upsert_cli.counts import Converted, Counts
from upsert_cli.journal.file_access import reading_from, writing_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The position up to which every row is committed."""

    position: dict[str, Any]
    """Where to continue reading; opaque here."""

    rows: int = 0
    counts: Counts = field(default_factory=Counts)
    converted: Converted = field(default_factory=Converted)
    seconds: float = 0.0
    """The task's `load_seconds` up to here."""

    rejects_bytes: int = 0
    """Length of the rejects file; rejects after it are from rows that will be read again."""

    retried: int | None = None
    """Committed rows of the retry file; None in an attempt that reads all rows."""

    missing: int | None = None
    """Records on the list of those to delete at the end; None if no list was made."""

    unlisted: int = 0
    """Records at the beginning of that list that are dealt with."""

    saved_at: str | None = field(default=None, compare=False)
    """UTC; None in a checkpoint of an older version, and in one that was never saved."""

    def as_json(self) -> dict[str, Any]:
        """Return the checkpoint as plain data."""
        return asdict(self) | self.converted.as_json()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Checkpoint:
        """Make a checkpoint from its JSON, and ignore unknown keys, written by a newer version."""
        return cls(
            position=dict(value["position"]),
            rows=int(value["rows"]),
            counts=Counts.from_json(value["counts"]),
            converted=Converted.from_json(value),
            seconds=float(value.get("seconds", 0.0)),
            rejects_bytes=int(value["rejects_bytes"]),
            retried=None if value.get("retried") is None else int(value["retried"]),
            missing=None if value.get("missing") is None else int(value["missing"]),
            unlisted=int(value.get("unlisted", 0)),
            saved_at=None if value.get("saved_at") is None else str(value["saved_at"]),
        )


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Return the checkpoint in a progress file; None if the file is missing or torn."""
    try:
        with reading_from(path):
            checksum, _, text = read_whole(path).partition(b" ")
        return Checkpoint.from_json(json.loads(text)) if checksum == _checksum(text) else None
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace a progress file without forcing it to the disk, since a torn one reads as none."""
    text = json.dumps(checkpoint.as_json()).encode("ascii")
    with writing_to(path):
        replace_file(path, _checksum(text) + b" " + text, durable=False)


def _checksum(text: bytes) -> bytes:
    # It has to tell a torn file from a whole one, not to withstand an attacker.
    return b"%08x" % zlib.crc32(text)
