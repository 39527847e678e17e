"""Task, TaskStatus, and which status may follow which; pure data, no files."""

from __future__ import annotations

import enum
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from upsert_cli.journal.validtext import valid_json, valid_text

FAILED_ITEMS = 20  # rejects in a task's record; all of them are in its rejects file
FAILED_ITEMS_CHARS = 16_384  # characters of JSON for all rejects in a record, so that a segment stays small
ID_ALPHABET = "23456789abcdefghijkmnpqrstuvwxyz"  # 32 characters, none of which looks like another
ID_SUFFIX = 4  # characters; a million ids a second, and `create` refuses one that is taken

_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class TaskStatus(enum.StrEnum):
    """State of a task, by the names of the API that this tool stands for."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"
    CANCELED = "canceled"
    FAILED = "failed"
    REFUSED = "refused"

    @property
    def is_final(self) -> bool:
        """Tells whether only a restart leads out of this state."""
        return self not in (TaskStatus.PENDING, TaskStatus.PROCESSING)


_ENDS = frozenset(status for status in TaskStatus if status.is_final)

MOVES: Mapping[TaskStatus, frozenset[TaskStatus]] = {
    # A state that is not final may follow itself: that changes other fields, such as the wish to cancel.
    TaskStatus.PENDING: frozenset(TaskStatus) - {TaskStatus.DONE},
    TaskStatus.PROCESSING: frozenset(TaskStatus),
    **dict.fromkeys(_ENDS, frozenset({TaskStatus.PENDING})),
}
"""Which states may follow which; the only way out of a final one is a restart."""


class ImpossibleMove(ValueError):
    """Raised when code of ours asks for a change of state that there is not: a bug, not the user's error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of the rows that were read."""

    read: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    duplicate: int = 0
    failed: int = 0
    deleted: int = 0
    truncated: int = 0
    """Texts longer than the model's limit, embedded up to there; they are inserted or updated as well."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{name: value + getattr(other, name) for name, value in self.as_json().items()})

    def reconciles(self) -> bool:
        """Tells whether every row that was read ended as exactly one thing."""
        return self.read == self.inserted + self.updated + self.unchanged + self.duplicate + self.failed

    def as_json(self) -> dict[str, int]:
        """Returns the counts as plain data, in the order of the contract."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Counts:
        """Reads what `as_json` wrote; keys that are unknown, of a newer version, are ignored."""
        return cls(**_known(cls, value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One load, with a state; as it is in the journal."""

    id: str
    status: TaskStatus
    created_at: str
    """All times are UTC: `2026-11-23T21:03:12Z`."""

    updated_at: str
    started_at: str | None = None
    """When the newest attempt began."""

    finished_at: str | None = None
    failed_items: tuple[dict[str, Any], ...] = ()
    """The first rejects, in the shape of the contract."""

    detail: str | None = None
    """One line of reason for the state."""

    kind: str
    """`default` or `categories`."""

    collection: str
    chroma: str
    model: str
    sources: tuple[str, ...]
    attempt: int = 1
    rows: int = 0
    """Rows that are settled, over all attempts since the start."""

    total: int | None = None
    counts: Counts = field(default_factory=Counts)
    converted: int = 0
    """Values that were changed to fit into Chroma."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds that each stage of the newest attempt was busy, by its name; `total` is all of the attempt."""

    inputs: tuple[dict[str, Any], ...] = ()
    """Fingerprints of the sources, opaque here."""

    options: dict[str, Any] = field(default_factory=dict)
    """Options of the run, opaque here."""

    cancel_requested: bool = False

    def moved(self, to: TaskStatus, **changes: object) -> Task:
        """Returns the task in another state, with the fields that follow from that unless `changes` has them.

        Raises:
            ImpossibleMove: The state may not follow the present one.
        """
        if to not in MOVES[self.status]:
            raise ImpossibleMove(f"{self.status} -> {to}")
        now = utc_now()
        follows: dict[str, Any] = {"status": to, "updated_at": now}
        if to is not self.status:
            follows |= {"finished_at": now if to.is_final else None, "cancel_requested": False}
        return replace(self, **(follows | changes))

    def as_record(self) -> dict[str, Any]:
        """Returns the task for the journal: plain data of bounded size, all text valid except for names of files.

        A path that is not UTF-8 keeps the lone surrogates by which Python spells it, or it could not be opened again.
        """
        record = {each.name: getattr(self, each.name) for each in fields(self)}
        return record | {
            "status": self.status.value,
            "failed_items": list(_bounded(self.failed_items)),
            "detail": None if self.detail is None else valid_text(self.detail),
            "sources": list(self.sources),
            "counts": self.counts.as_json(),
            "inputs": list(self.inputs),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Task:
        """Reads what `as_record` wrote; keys that are unknown, of a newer version, are ignored.

        Raises:
            ValueError: The record is none of a task.
        """
        try:
            known = _known(cls, record)
            return cls(
                **known
                | {
                    "status": TaskStatus(known["status"]),
                    "failed_items": tuple(dict(item) for item in known.get("failed_items", ())),
                    "sources": tuple(known["sources"]),
                    "counts": Counts.from_json(known.get("counts", {})),
                    "inputs": tuple(dict(value) for value in known.get("inputs", ())),
                    "seconds": dict(known.get("seconds", {})),
                    "options": dict(known.get("options", {})),
                }
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"no task: {type(error).__name__}: {error}") from error

    def as_json(self, *, running: bool) -> dict[str, Any]:
        """Returns the task as the command line prints it, in the order of the contract, all text valid."""
        shown = {
            **{name: getattr(self, name) for name in ("id", "status", "created_at", "updated_at", "started_at")},
            "finished_at": self.finished_at,
            "failed_items": [{key: item[key] for key in item if key != "cut"} for item in self.failed_items],
            **{name: getattr(self, name) for name in ("detail", "kind", "collection", "chroma", "model")},
            "sources": self.sources,
            "attempt": self.attempt,
            "running": running,
            "progress": {"rows": self.rows, "total": self.total},
            "counts": self.counts.as_json(),
            "converted": self.converted,
            "seconds": self.seconds,
            "options": self.options,
        }
        plain: dict[str, Any] = json.loads(valid_json(shown))
        return plain

    @property
    def has_cut_items(self) -> bool:
        """Tells whether a failed item was too long for the record; the rejects file has it whole."""
        return any("cut" in item for item in self.failed_items)


def utc_now() -> str:
    """Returns this moment as the journal writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_task_id(now: datetime | None = None) -> str:
    """Returns an id that sorts by time and that a person can read aloud: `20261123-210312-k3f9`.

    Args:
        now: A moment with its time zone; None: this one.
    """
    moment = datetime.now(UTC) if now is None else now.astimezone(UTC)
    suffix = "".join(ID_ALPHABET[byte % len(ID_ALPHABET)] for byte in os.urandom(ID_SUFFIX))
    return f"{moment:%Y%m%d-%H%M%S}-{suffix}"


def valid_task_id(text: str) -> bool:
    """Tells whether `text` can be a task's id, and so a part of a file name."""
    return _TASK_ID.fullmatch(text) is not None


def _bounded(items: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    room = FAILED_ITEMS_CHARS
    for item in list(items)[:FAILED_ITEMS]:
        text = valid_json(item)
        if (room := room - len(text)) >= 0:
            yield json.loads(text)
        else:
            yield json.loads(valid_json(_cut(item)))


def _cut(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _short(value) for key, value in item.items()} | {"payload": None, "item_info": None, "cut": True}


def _short(value: object) -> object:
    longest = FAILED_ITEMS_CHARS // FAILED_ITEMS // 4  # characters; few enough that all items fit when all are cut
    if isinstance(value, str):
        return value[:longest]
    return value if len(valid_json(value)) <= longest else None


def _known(cls: type[Any], value: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(cls)}
    return {name: value[name] for name in value if name in names}
