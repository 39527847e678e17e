"""Observers of a running task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from upsert_cli.context import Progress
from upsert_cli.journal.task import Task


class Observer(Protocol):
    """An observer of a running task; called by the main thread only."""

    def started(self, task: Task) -> None:
        """Called when the task begins to be processed."""

    def progressed(self, progress: Progress) -> None:
        """Called after each batch, and about ten times a second."""

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Called with new records of the rejects file."""

    def info(self, message: str) -> None:
        """Called before a step that takes long."""

    def warning(self, message: str) -> None:
        """Called with a message for the user that does not stop the load."""

    def killed(self) -> None:
        """Called in a signal handler at a second signal, before the process dies."""
