"""How far a running task is, and who wants to know."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from upsert_cli.journal.attempts import Counts
from upsert_cli.journal.task import Task
from upsert_cli.pipeline.ignored import NOTHING_IGNORED, IgnoredFields


@dataclass(slots=True)
class Progress:
    """How far a task is; read by the display while the stages count."""

    total: int | None
    """Rows of all sources, where that is known."""

    read: int = 0
    """Rows that were read, in all attempts; the same goes for `embedding_passed` and `settled`."""

    embedding_passed: int = 0
    """Rows that were embedded, or needed no vector."""

    settled: int = 0
    """Rows that are written, or needed no writing, and committed."""

    embedded: int = 0
    """Items whose text was embedded, in this attempt."""

    written: int = 0
    """Items that were inserted or updated, in this attempt."""

    counts: Counts = field(default_factory=Counts)
    stage: str = "starting"
    ignored: IgnoredFields = NOTHING_IGNORED
    """Of the rows that were read."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds that each stage was busy, without its waiting for others; each name is added to by one thread."""

    @classmethod
    def at(cls, rows: int, *, total: int | None, counts: Counts) -> Progress:
        """Return the progress of an attempt that goes on after `rows` rows."""
        return cls(total=total, read=rows, embedding_passed=rows, settled=rows, counts=counts)

    @property
    def to_embed(self) -> int | None:
        """Return the items that this attempt embeds, as far as is known: each row that is left may be one."""
        return None if self.total is None else self.embedded + max(0, self.total - self.embedding_passed)

    @property
    def to_write(self) -> int | None:
        """Return the items that this attempt writes, as far as is known: each row that is left may be one."""
        return None if self.total is None else self.written + max(0, self.total - self.settled)

    @contextmanager
    def busy(self, name: str) -> Iterator[None]:
        """Counts the time inside as work of a stage."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - began)

    def add(self, name: str, seconds: float) -> None:
        """Counts `seconds` as work of a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


class Observer(Protocol):
    """Who wants to know what a running task does; called by the main thread only."""

    def started(self, task: Task) -> None:
        """The task is being processed from now on."""

    def progressed(self, progress: Progress) -> None:
        """A tenth of a second has passed, or a batch was settled."""

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Items went into the rejects file."""

    def told(self, message: str) -> None:
        """A step that takes long begins."""

    def noted(self, message: str) -> None:
        """Something that the user should know although the work goes on."""

    def killed(self) -> None:
        """A second signal: the process ends at once. Called inside a signal handler."""
