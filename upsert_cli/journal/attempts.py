"""What became of a task's rows, and of each attempt at it; pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from upsert_cli.counts import Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One run of a task, from its start to its end."""

    attempt: int
    """Counted from 1."""

    status: str
    """How it ended; `processing` where its runner died, `pending` where a signal gave the task back to the queue."""

    started_at: str | None
    finished_at: str | None
    """None where nobody could write it down."""

    detail: str | None
    counts: Counts
    """Those of the task at its end."""

    seconds: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Returns the attempt as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Attempt:
        """Reads what `as_json` wrote; keys that are unknown, of a newer version, are ignored."""
        return cls(**known_fields(cls, value) | {"counts": Counts.from_json(value["counts"])})


def known_fields(cls: type[Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `value` that are fields of a dataclass, and leave out unknown ones of a newer version."""
    names = cls.__dataclass_fields__  # `fields` would make a tuple of them for each of 100,000 records
    return {name: value[name] for name in value if name in names}
