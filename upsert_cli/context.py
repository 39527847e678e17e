"""The surroundings of a run: when it has to stop, how far it has come, and where its messages go."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from upsert_cli.counts import Counts


@dataclass(slots=True)
class Progress:
    """How far a load has come; the display reads it while the stages count."""

    total: int | None
    """Rows of all sources; None until they are known."""

    read: int = 0
    """Rows that were read, in all attempts; the same goes for `embedding_passed` and `committed`."""

    embedding_passed: int = 0
    """Rows that were embedded, or needed no vector."""

    committed: int = 0
    """Rows that are written, or needed no writing, and committed."""

    embedded: int = 0
    """Items whose text was embedded. Of earlier attempts only the written items are known; they are taken for it."""

    written: int = 0
    """Items that were inserted or updated, in all attempts."""

    counts: Counts = field(default_factory=Counts)
    stage: str = "starting"
    began: float = field(default_factory=time.monotonic)
    """The monotonic time at which the load would have begun if its attempts had followed each other at once."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall seconds that each stage was busy, without its waiting for others; each name is added to by one thread."""

    busy_now: set[str] = field(default_factory=set)
    """The stages that are busy at this moment."""

    example: str = ""
    """The text of the first item that this attempt has read, which a query will find."""

    is_model_unnamed: bool = False
    """Whether the collection does not name its model, so that a query has to."""

    def continue_after(self, rows: int, counts: Counts) -> None:
        """Go on after `rows` committed rows of earlier attempts; in a retry of rejects, these are not all rows."""
        self.read = self.embedding_passed = self.committed = rows
        self.counts = counts
        self.embedded = self.written = counts.inserted + counts.updated if rows == counts.read else 0

    @property
    def to_embed(self) -> int | None:
        """Return the items to embed, as far as is known: each row that is left may be one."""
        return None if self.total is None else self.embedded + max(0, self.total - self.embedding_passed)

    @property
    def to_write(self) -> int | None:
        """Return the items to write, as far as is known: each row that is left may be one."""
        return None if self.total is None else self.written + max(0, self.total - self.committed)

    @contextmanager
    def busy(self, name: str) -> Iterator[None]:
        """Count the time inside as work of a stage."""
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
    """The surroundings of a run, for any thread; these never stop it, and drop its reports."""

    def __init__(self, total: int | None = None) -> None:
        self.progress = Progress(total=total)

    def check(self) -> None:
        """Show the progress and raise if the run has to stop; called at least every 0.1 s while a thread waits.

        Raises:
            Interrupted: A signal arrived.
            Canceled: Another process canceled the task.
        """

    def info(self, message: str) -> None:
        """Report a step that takes long, or a retry."""

    def warning(self, message: str) -> None:
        """Report something that the user should know although the run continues."""

    def show_now(self) -> None:
        """Show the progress, in the main thread, even if it was shown a moment ago."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let a write, a deletion or a flush of the main thread end before the run stops."""
        yield

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Report new records of the rejects file, in the main thread."""
