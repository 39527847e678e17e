"""Stand-ins for workers: they run units within this process, and die where a test wants them to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from upsert_cli.cluster.scheduler import Event
from upsert_cli.journal.receipts import Receipt
from upsert_cli.sources.rows import Unit


class StandIns:
    """Workers that run one after the other; the last unit given out is the first one done."""

    def __init__(self, run: Callable[[Unit], Receipt], *, dies: Callable[[Unit], bool] = lambda _: False) -> None:
        """Take the function that runs a unit, and the condition under which a worker dies."""
        self._run = run
        self._dies = dies
        self._events: deque[Event] = deque()
        self._given: list[tuple[int, Unit]] = []
        self.started = 0
        self.runs: list[Unit] = []

    def start(self) -> int:
        """Start a worker."""
        self.started += 1
        self._events.append(Event(self.started))
        return self.started

    def give(self, worker: int, unit: Unit) -> None:
        """Give it a unit."""
        self._given.append((worker, unit))

    def events(self, seconds: float) -> Sequence[Event]:  # noqa: ARG002
        """Return one thing that happens."""
        if self._events:
            return [self._events.popleft()]
        if not self._given:
            return []
        worker, unit = self._given.pop()
        self.runs.append(unit)
        return [Event(worker, death="SIGSEGV") if self._dies(unit) else Event(worker, receipt=self._run(unit))]
