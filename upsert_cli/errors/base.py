"""What all errors have in common: their kinds, each with its exit code, and what is wrong with one item."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, ClassVar

SOME_REJECTED = 3  # exit code of a task that is done, but not with every item; no error, so no class


class UpsertCliError(Exception):
    """Root of all errors that are the user's to mend; anything else that escapes is a bug."""

    exit_code: ClassVar[int] = 1

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only fields do not survive pickling by themselves, and some cross the writer's pipe.
        return _restore, (type(self), vars(self))


def _restore(kind: type[UpsertCliError], data: dict[str, Any]) -> UpsertCliError:
    error = kind.__new__(kind)
    error.__dict__.update(data)
    return error


class UsageFault(UpsertCliError):
    """Root of the errors in what was typed."""

    exit_code = 2


class Refusal(UpsertCliError):
    """Root of the cases in which the tool writes nothing, on purpose."""

    exit_code = 4


class Stage(enum.StrEnum):
    """Where on its way an item was lost; the `failure_stage` of a reject."""

    READING = "on_reading"
    DOWNLOADING = "on_downloading"
    SPLITTING = "on_splitting"
    INFERENCE = "on_inference"
    UPSERT = "on_upsert"
    OTHER = "other"


@dataclass(eq=False, kw_only=True)
class ItemError(Exception):
    """Raised when one item cannot be loaded, and only that one."""

    stage: Stage
    detail: str
    """One line of reason, such as `payload.text is empty`."""

    line: str | None = None
    """The row as it stands in its file, where it could not be parsed."""

    def __str__(self) -> str:
        return self.detail
