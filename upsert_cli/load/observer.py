"""Observers of a running task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from upsert_cli.context import Progress
from upsert_cli.journal.task import Task


class Observer(Protocol):
    """Who wants to know what a running task does; called by the main thread only."""

    def started(self, task: Task) -> None:
        """The task is being processed from now on."""

    def progressed(self, progress: Progress) -> None:
        """A tenth of a second has passed, or a batch was settled."""

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Items went into the rejects file."""

    def info(self, message: str) -> None:
        """A step that takes long begins."""

    def warning(self, message: str) -> None:
        """Something that the user should know although the work goes on."""

    def killed(self) -> None:
        """A second signal: the process ends at once. Called inside a signal handler."""
