"""A task, its attempts, its statuses, and which status may follow which; pure data, no files."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from upsert_cli.counts import Converted, Counts
from upsert_cli.errors import SOME_REJECTED, Canceled, Refusal, UpsertCliError
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.progress import known_fields
from upsert_cli.journal.rejects import first_rejects, valid_json
from upsert_cli.redaction import in_message

ATTEMPTS = 20  # earlier attempts that a task's record keeps, so that a segment stays small
DIED = "died"  # shown for a task that is `processing` although no process runs it
STOPPED = "stopped"  # shown for a task that is `failed` because a signal stopped it


class TaskStatus(enum.StrEnum):
    """The state of a task, by the names of the API that this tool stands for."""

    PENDING = "pending"
    PROCESSING = "processing"
    DONE = "done"
    CANCELED = "canceled"
    FAILED = "failed"
    REFUSED = "refused"

    @property
    def is_final(self) -> bool:
        """Whether only a restart leads out of this state."""
        return self not in (TaskStatus.PENDING, TaskStatus.PROCESSING)


_ENDS = frozenset(status for status in TaskStatus if status.is_final)

MOVES: Mapping[TaskStatus, frozenset[TaskStatus]] = {
    # A state that is not final may follow itself: that changes other fields, such as the request to cancel.
    TaskStatus.PENDING: frozenset(TaskStatus) - {TaskStatus.DONE},
    TaskStatus.PROCESSING: frozenset(TaskStatus),
    **dict.fromkeys(_ENDS, frozenset({TaskStatus.PENDING})),
}
"""Which states may follow which; the only way out of a final one is a restart."""

_EXIT_CODES = {
    TaskStatus.FAILED: UpsertCliError.exit_code,
    TaskStatus.REFUSED: Refusal.exit_code,
    TaskStatus.CANCELED: Canceled.exit_code,
}

SHOWN_STATES = {DIED: TaskStatus.PROCESSING, STOPPED: TaskStatus.FAILED}
"""The states for people that no record has, each with the recorded one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a task, from its start to its end."""

    attempt: int
    """Counted from 1."""

    status: str
    """How it ended; `processing` if its runner died, `pending` if a signal returned the task to the queue."""

    started_at: str | None
    finished_at: str | None
    """None if nobody could record it."""

    detail: str | None
    counts: Counts
    """Those of the task at the attempt's end."""

    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One load, with a state, as the journal records it."""

    id: str
    status: TaskStatus
    created_at: str
    """All times are UTC: `2026-11-23T21:03:12Z`."""

    updated_at: str
    started_at: str | None = None
    """When the newest attempt began."""

    finished_at: str | None = None
    failed_items: tuple[dict[str, Any], ...] = ()
    """The first rejects, in the shape of the JSON output."""

    detail: str | None = None
    """One line that gives the reason for the state."""

    stopped_by: str | None = None
    """The name of the signal that ended the last attempt, such as `SIGTERM`."""

    kind: str
    """`default` or `categories`."""

    collection: str
    chroma: str
    model: str
    sources: tuple[str, ...]
    attempt: int = 1
    earlier: tuple[Attempt, ...] = ()
    """The attempts before the newest one that were begun; the last `ATTEMPTS` of them."""

    queued: bool = False
    """Whether `upsert-cli work` runs it, and continues it if a worker dies."""

    rows: int = 0
    """Committed rows, over all attempts since the start."""

    total: int | None = None
    counts: Counts = field(default_factory=Counts)
    converted: Converted = field(default_factory=Converted)

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds that each stage of the newest attempt was busy, by its name; `total` is the whole attempt."""

    load_seconds: float = 0.0
    """Wall seconds of all attempts from `first_attempt` on, without the time between them."""

    first_attempt: int = 1
    """The attempt that began at the start of the sources; rows and counts are those since then."""

    inputs: tuple[dict[str, Any], ...] = ()
    """Fingerprints of the sources, opaque here."""

    options: LoadOptions = field(default_factory=LoadOptions)

    cancel_requested: bool = False

    running: bool = field(default=False, compare=False)
    """Whether a process runs it now; not recorded, and known only after `Journal.with_runner`."""

    @property
    def exit_code(self) -> int:
        """The exit code that stands for the state; 0 while nothing has gone wrong."""
        if self.status is TaskStatus.DONE:
            return self.done_code(self.counts)
        return _EXIT_CODES.get(self.status, 0)

    def done_code(self, counts: Counts) -> int:
        """Return the exit code that the task has if it reaches the end of its sources with these counts."""
        if not counts.failed:
            return 0
        too_many = self.options.exceeds_max_failures(counts.failed, counts.read, from_row=0)
        return UpsertCliError.exit_code if self.options.strict or too_many else SOME_REJECTED

    @property
    def load_attempts(self) -> int:
        """The number of attempts to which rows, counts and `load_seconds` belong; the next one has not begun yet."""
        return self.attempt - self.first_attempt + (self.started_at is not None)

    def moved(self, to: TaskStatus, **changes: object) -> Task:
        """Return the task in another state, with the fields that follow from that unless `changes` has them.

        Raises:
            ValueError: The state may not follow the present one: a bug, not the user's error.
        """
        if to not in MOVES[self.status]:
            raise ValueError(f"{self.status} -> {to}")
        if isinstance(detail := changes.get("detail"), str):
            changes = changes | {"detail": in_message(detail)}
        now = utc_now()
        follows: dict[str, Any] = {"status": to, "updated_at": now}
        if to is not self.status:
            follows |= {"finished_at": now if to.is_final else None, "cancel_requested": False}
        if to is TaskStatus.PROCESSING and to is not self.status:
            follows["stopped_by"] = None
        if to is TaskStatus.PENDING and self.started_at is not None:
            follows |= {"attempt": self.attempt + 1, "started_at": None, "earlier": self._with_newest(now, changes)}
            changes = changes | {"seconds": {}}
        return replace(self, **(follows | changes))

    def _with_newest(self, now: str, changes: Mapping[str, Any]) -> tuple[Attempt, ...]:
        newest = self
        if "seconds" in changes:  # its runner records its end; nobody knows when a runner died
            ending = {name: changes[name] for name in ("detail", "seconds", "counts") if name in changes}
            newest = replace(self, status=TaskStatus.PENDING, finished_at=now, **ending)
        return (*self.earlier, newest.newest_attempt)[-ATTEMPTS:]

    @property
    def newest_attempt(self) -> Attempt:
        """The running or the last attempt."""
        names = (each.name for each in fields(Attempt))
        return Attempt(**{name: getattr(self, name) for name in names} | {"status": self.status.value})

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts that were begun, the oldest first."""
        return self.earlier if self.started_at is None else (*self.earlier, self.newest_attempt)

    def as_record(self) -> dict[str, Any]:
        """Return the task for the journal: plain data of bounded size, all text valid except for names of files.

        A path that is not UTF-8 keeps the lone surrogates by which Python spells it, or it could not be opened later.
        """
        record = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "running"}
        return record | {
            "status": self.status.value,
            "failed_items": list(first_rejects(self.failed_items)),
            "detail": json.loads(valid_json(self.detail)),
            "sources": list(self.sources),
            "counts": self.counts.as_json(),
            "inputs": list(self.inputs),
            "options": self.options.as_json(),
            "earlier": list(map(asdict, self.earlier)),
            **self.converted.as_json(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Task:
        """Make a task from its record, and ignore unknown keys, written by a newer version.

        Raises:
            ValueError: The record is not that of a task.
        """
        try:
            known = known_fields(cls, record)
            return cls(
                **known
                | {
                    "status": TaskStatus(known["status"]),
                    "failed_items": tuple(dict(item) for item in known.get("failed_items", ())),
                    "sources": tuple(known["sources"]),
                    "counts": Counts.from_json(known.get("counts", {})),
                    "converted": Converted.from_json(record),
                    "inputs": tuple(dict(value) for value in known.get("inputs", ())),
                    "seconds": dict(known.get("seconds", {})),
                    "options": LoadOptions.from_json(known.get("options", {})),
                    "earlier": tuple(map(_attempt, known.get("earlier", ()))),
                }
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a task: {type(error).__name__}: {error}") from error

    def as_json(self) -> dict[str, Any]:
        """Return the task as the command line prints it: keys in a fixed order, all text valid."""
        shown = {
            **{name: getattr(self, name) for name in ("id", "status", "created_at", "updated_at", "started_at")},
            "finished_at": self.finished_at,
            "failed_items": [{key: item[key] for key in item if key != "cut"} for item in self.failed_items],
            **{name: getattr(self, name) for name in ("detail", "kind", "collection", "chroma", "model")},
            "sources": self.sources,
            "attempt": self.attempt,
            "running": self.running,
            "stopped_by": self.stopped_by,
            "progress": {"rows": self.rows, "total": self.total},
            "counts": self.counts.as_json(),
            "converted": self.converted.values,
            "seconds": self.seconds,
            "queued": self.queued,
            "attempts": list(map(asdict, self.attempts)),
            "options": self.options.as_json(),
        }
        plain: dict[str, Any] = json.loads(valid_json(shown))
        return plain

    @property
    def has_died(self) -> bool:
        """Whether the task's runner died."""
        return self.status is TaskStatus.PROCESSING and not self.running

    @property
    def shown_state(self) -> str:
        """The state for people; `SHOWN_STATES` has those that no record has."""
        if self.has_died:
            return DIED
        return STOPPED if self.status is TaskStatus.FAILED and self.stopped_by else self.status.value

    @property
    def has_cut_items(self) -> bool:
        """Whether a failed item was too long for the record; the rejects file has it whole."""
        return any("cut" in item for item in self.failed_items)


def _attempt(value: Mapping[str, Any]) -> Attempt:
    return Attempt(**known_fields(Attempt, value) | {"counts": Counts.from_json(value["counts"])})


def utc_now() -> str:
    """Return this moment as the journal writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
