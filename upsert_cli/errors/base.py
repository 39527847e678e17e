"""What all errors have in common: their kinds, each with its exit code, and what is wrong with one item."""

from __future__ import annotations

import enum
from typing import Any, dataclass_transform

SOME_REJECTED = 3  # exit code of a task that is done, but not with every item; no error, so no class


@dataclass_transform(kw_only_default=True, eq_default=False)
class Situation(Exception):
    """What can be raised with data: the annotated names of a kind are its fields, given by name, as in a dataclass.

    Not made by `dataclass` itself, which compiles code for each of some ninety kinds whenever a command starts.
    """

    def __init__(self, **data: Any) -> None:
        known = {name for kind in type(self).__mro__ if issubclass(kind, Situation) for name in kind.__annotations__}
        missing = {name for name in known if not hasattr(type(self), name)} - set(data)
        if wrong := sorted(missing | (set(data) - known)):
            raise TypeError(f"{type(self).__name__} has the fields {sorted(known)}; missing or unknown: {wrong}")
        super().__init__()
        vars(self).update(data)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__qualname__}({fields})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only fields do not survive pickling by themselves, and some cross the writer's pipe.
        return _restore, (type(self), vars(self))


def _restore(kind: type[Situation], data: dict[str, Any]) -> Situation:
    error = kind.__new__(kind)
    vars(error).update(data)
    return error


class UpsertCliError(Situation):
    """Root of all errors that the user can fix; anything else that escapes is a bug.

    Raise a kind with `message=` where nobody catches the error; a class of its own is for those that somebody catches.
    """

    exit_code = 1
    message: str = ""
    """What happened, where, and what to do next, in one line."""

    def __str__(self) -> str:
        return self.message


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


class ItemError(Situation):
    """Raised when one item cannot be loaded, and only that one."""

    stage: Stage
    detail: str
    """One line of reason, such as `payload.text is empty`."""

    def __str__(self) -> str:
        return self.detail
