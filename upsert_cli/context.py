"""The context of a run: its progress, the request to stop, and the receiver of its messages."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from upsert_cli.counts import Counts


@dataclass(slots=True)
class Progress:
    """The progress of a load, which the stages count and the display reads."""

    total: int | None
    """Rows of all sources; None until they are counted."""

    read: int = 0
    """Rows that were read in all attempts; `embedding_passed` and `committed` are sums of all attempts, too."""

    embedding_passed: int = 0
    """Rows that were embedded, or needed no vector."""

    committed: int = 0
    """Rows that were committed."""

    embedded: int = 0
    """Items whose text was embedded. Earlier attempts count with their written items, since nothing else is known."""

    written: int = 0
    """Items that were inserted or updated, in all attempts."""

    counts: Counts = field(default_factory=Counts)
    stage: str = "starting"
    began: float = field(default_factory=time.monotonic)
    """The monotonic time at which the load would have begun if its attempts had followed each other at once."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds that each stage was busy, without waiting for other stages; one thread adds to each name."""

    busy_now: set[str] = field(default_factory=set)
    """The stages that are busy at this moment."""

    example: str = ""
    """The text of the first item of this attempt, for a query that finds the item."""

    is_model_unnamed: bool = False
    """Whether the collection names no model, so that a query has to name one."""

    def continue_after(self, rows: int, counts: Counts) -> None:
        """Continue after `rows` committed rows of earlier attempts; in a retry of rejects, more rows were read."""
        self.read = self.embedding_passed = self.committed = rows
        self.counts = counts
        self.embedded = self.written = counts.inserted + counts.updated if rows == counts.read else 0

    @property
    def to_embed(self) -> int | None:
        """Return the number of items to embed, where each row that is left counts as one; None without a total."""
        return None if self.total is None else self.embedded + max(0, self.total - self.embedding_passed)

    @property
    def to_write(self) -> int | None:
        """Return the number of items to write, where each row that is left counts as one; None without a total."""
        return None if self.total is None else self.written + max(0, self.total - self.committed)

    @contextmanager
    def busy(self, name: str) -> Iterator[None]:
        """Count the time of the block as work of a stage."""
        began = time.monotonic()
        self.busy_now.add(name)
        try:
            yield
        finally:
            self.busy_now.discard(name)
            self.add(name, time.monotonic() - began)

    def add(self, name: str, seconds: float) -> None:
        """Count `seconds` as work of a stage."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


class RunContext:
    """The context of a run, for any thread; this base class never stops the run, and drops its messages."""

    def __init__(self, total: int | None = None) -> None:
        self.progress = Progress(total=total)

    def check(self) -> None:
        """Show the progress, and raise if the run has to stop. Threads that wait call this at least every 0.1 s.

        Raises:
            Interrupted: A signal arrived.
            Canceled: Another process canceled the task.
        """

    def info(self, message: str) -> None:
        """Report a step that takes long, or a retry."""

    def warning(self, message: str) -> None:
        """Warn the user, while the run continues."""

    def show_now(self) -> None:
        """Show the progress even if it was shown a moment ago; only in the main thread."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let a write, a deletion or a flush in the block end before the run stops; only in the main thread."""
        yield

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Report new records of the rejects file; only in the main thread."""
