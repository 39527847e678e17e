"""A task, its attempts, its statuses, and which status may follow which."""

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

ATTEMPTS = 20  # earlier attempts in a task's record, so that a segment stays small
DIED = "died"  # shown for a task that is `processing` although no process runs it
STOPPED = "stopped"  # shown for a task that is `failed` because a signal stopped it


class TaskStatus(enum.StrEnum):
    """The state of a task, as the API names it."""

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


MOVES: Mapping[TaskStatus, frozenset[TaskStatus]] = {
    # A state that is not final may follow itself: that changes other fields, such as the request to cancel.
    TaskStatus.PENDING: frozenset(TaskStatus) - {TaskStatus.DONE},
    TaskStatus.PROCESSING: frozenset(TaskStatus),
    **{status: frozenset({TaskStatus.PENDING}) for status in TaskStatus if status.is_final},
}
"""The states that may follow each state; only a restart leads out of a final one."""

_EXIT_CODES = {
    TaskStatus.FAILED: UpsertCliError.exit_code,
    TaskStatus.REFUSED: Refusal.exit_code,
    TaskStatus.CANCELED: Canceled.exit_code,
}

SHOWN_STATES = {DIED: TaskStatus.PROCESSING, STOPPED: TaskStatus.FAILED}
"""The states that only people see, each with the state in the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a task, from its start to its end."""

    attempt: int
    """Counted from 1."""

    status: str
    """The state at its end; `processing` if its runner died, `pending` if a signal returned the task to the queue."""

    started_at: str | None
    finished_at: str | None
    """None if the runner died before it could record its end."""

    detail: str | None
    counts: Counts
    """The counts of the task at the attempt's end."""

    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One load with its state, as the journal records it."""

    id: str
    status: TaskStatus
    created_at: str
    """All times are UTC: `2026-11-23T21:03:12Z`."""

    updated_at: str
    started_at: str | None = None
    """When the newest attempt began."""

    finished_at: str | None = None
    failed_items: tuple[dict[str, Any], ...] = ()
    """The first rejects, as in the JSON output."""

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
    """The last `ATTEMPTS` attempts before the newest one."""

    queued: bool = False
    """Whether `upsert-cli work` runs the task, and continues it if a worker dies."""

    rows: int = 0
    """Committed rows of all attempts from `first_attempt` on."""

    total: int | None = None
    counts: Counts = field(default_factory=Counts)
    converted: Converted = field(default_factory=Converted)

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds that each stage of the newest attempt was busy, by its name; `total` is the whole attempt."""

    load_seconds: float = 0.0
    """Wall seconds of all attempts from `first_attempt` on, without the time between them."""

    first_attempt: int = 1
    """The attempt that began at the start of the sources; rows and counts are summed up from there."""

    inputs: tuple[dict[str, Any], ...] = ()
    """The sources with their fingerprints; the journal does not interpret them."""

    options: LoadOptions = field(default_factory=LoadOptions)

    cancel_requested: bool = False

    running: bool = field(default=False, compare=False)
    """Whether a process runs the task now; not recorded, and set by `Journal.with_runner` alone."""

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
        """The number of attempts to which rows, counts and `load_seconds` belong."""
        return self.attempt - self.first_attempt + (self.started_at is not None)

    def moved(self, to: TaskStatus, **changes: object) -> Task:
        """Return the task in another state, with the fields that follow from the move; `changes` override these.

        Raises:
            ValueError: The state may not follow the present one, which is a bug and no fault of the user.
        """
        if to not in MOVES[self.status]:
            raise ValueError(f"{self.status} -> {to}")
        if isinstance(detail := changes.get("detail"), str):
            changes = changes | {"detail": in_message(detail)}
        now = utc_now()
        follows: dict[str, Any] = {"status": to, "updated_at": now}
        if to is not self.status:
            follows |= {"finished_at": now if to.is_final else None, "cancel_requested": False}
            if to is TaskStatus.PROCESSING:
                follows["stopped_by"] = None
        if to is TaskStatus.PENDING and self.started_at is not None:
            earlier = (*self.earlier, self._ended_attempt(now, changes))[-ATTEMPTS:]
            follows |= {"attempt": self.attempt + 1, "started_at": None, "earlier": earlier}
            changes = changes | {"seconds": {}}
        return replace(self, **(follows | changes))

    def _ended_attempt(self, now: str, changes: Mapping[str, Any]) -> Attempt:
        """Return the newest attempt of a task that becomes pending again by `changes`."""
        if "seconds" not in changes:  # the attempt ended before, or its runner died
            return self.newest_attempt
        ending = {name: changes[name] for name in ("detail", "seconds", "counts") if name in changes}
        return replace(self, status=TaskStatus.PENDING, finished_at=now, **ending).newest_attempt

    @property
    def newest_attempt(self) -> Attempt:
        """The running attempt or, if none is running, the last one."""
        shared = {each.name: getattr(self, each.name) for each in fields(Attempt)}
        return Attempt(**shared | {"status": self.status.value})

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """All attempts that were begun, the oldest first."""
        return self.earlier if self.started_at is None else (*self.earlier, self.newest_attempt)

    def as_record(self) -> dict[str, Any]:
        """Return the task for the journal: plain data of bounded size, with valid text except in paths.

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
        """Return the task in a record; keys that a newer version wrote are ignored.

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
        """Return the task for `--json`: the keys of the contract in its order, with valid text."""
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
        """The state that people see; see `SHOWN_STATES`."""
        if self.has_died:
            return DIED
        return STOPPED if self.status is TaskStatus.FAILED and self.stopped_by else self.status.value


def _attempt(value: Mapping[str, Any]) -> Attempt:
    return Attempt(**known_fields(Attempt, value) | {"counts": Counts.from_json(value["counts"])})


def utc_now() -> str:
    """Return the present time as the journal writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
