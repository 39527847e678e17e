"""The load that a user asks for, and the exit code that answers it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from upsert_cli.errors import SOME_REJECTED, Canceled, Refusal, UpsertCliError
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.task import Task, TaskStatus

Kind = Literal["default", "categories"]
IfRunning = Literal["refuse", "wait", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """A load as it was asked for."""

    kind: Kind
    names: tuple[str, ...]
    """Sources as typed; `-` is standard input."""

    chroma: str
    """Where to load into, as `address.place_named` spells it."""

    collection: str
    model: str
    options: LoadOptions
    task_id: str | None = None
    enqueue: bool = False
    """The task is left to `upsert-cli work`."""


def describe_options(value: str | int | tuple[str, ...] | None) -> str:
    """Returns an option's value as a user would give it."""
    if value is None or value is False:
        return "not given"
    return "given" if value is True else ", ".join(value) if isinstance(value, tuple) else str(value)


GRAVITY = (UpsertCliError.exit_code, Refusal.exit_code, Canceled.exit_code, SOME_REJECTED, 0)
"""The exit codes of tasks, the gravest first; a signal is graver than all of them."""


def worst_exit_code(codes: Iterable[int]) -> int:
    """Returns the exit code that stands for several tasks."""
    return min(codes, key=GRAVITY.index, default=0)


def exit_code(task: Task) -> int:
    """Returns the exit code that stands for a task's state; 0 while nothing has gone wrong yet."""
    options = task.options
    match task.status:
        case TaskStatus.DONE:
            return options.done_code(task.counts)
        case TaskStatus.FAILED:
            return UpsertCliError.exit_code
        case TaskStatus.REFUSED:
            return Refusal.exit_code
        case TaskStatus.CANCELED:
            return Canceled.exit_code
    return 0
