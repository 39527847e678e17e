"""The scheduler of units, which gives the unit of a worker that died to another worker.

A unit that kills worker after worker is halved until the row is found, so that one row costs no other row.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from upsert_cli.counts import Counts
from upsert_cli.errors import Stage, UpsertCliError
from upsert_cli.journal.receipts import Receipt
from upsert_cli.redaction import without_secrets
from upsert_cli.sources.item import Reject
from upsert_cli.sources.rows import Unit
from upsert_cli.sources.source import Source

EVENT_SECONDS = 0.1  # seconds between two checks of the run's context
TRIES = 3  # workers that may die with a unit before it is halved; machines also go away for other reasons
TRIES_ALONE = 2  # workers that may die with a single row before it is rejected
MAX_DEATHS = 40  # workers that may die with parts of a unit; a row is found after about 16 deaths
MAX_FAILED_STARTS = 5  # workers that may die one after the other before they are ready; then the load ends


class Event(NamedTuple):
    """A worker has started, has finished its unit, or has died."""

    worker: int
    receipt: Receipt | None = None
    """The receipt of the finished unit."""

    death: str | None = None
    """The reason of the death, in one line."""


class Workers(Protocol):
    """Worker processes, each with at most one unit at a time."""

    def start(self) -> int:
        """Request a worker and return its number; an event follows when it has started."""

    def give(self, worker: int, unit: Unit) -> None:
        """Give a unit to an idle worker."""

    def events(self, seconds: float) -> Sequence[Event]:
        """Wait for events, at most this long."""


@dataclass(slots=True)
class _Suspect:
    """A unit with which workers died, and the receipts of its parts."""

    unit: Unit
    deaths: int = 0
    parts: int = 1
    """Parts without a receipt."""

    receipts: list[Receipt] = field(default_factory=list)

    def whole_receipt(self) -> Receipt:
        """Return the receipt of the whole unit, once all parts have receipts."""
        merged = Receipt(unit=self.unit)
        for part in sorted(self.receipts, key=lambda receipt: receipt.unit.after):
            merged = replace(
                merged.plus(part),
                # Not merged: parts are loaded at the same time, and any of them may have written an id last.
                ids=[*merged.ids, *part.ids],
                embedded=merged.embedded + part.embedded,
                seconds=Counter(merged.seconds) + Counter(part.seconds),
                rest=part.rest,
                error=merged.error or part.error,
            )
        return merged


class Scheduler:
    """A scheduler that gives units to workers until all are done."""

    def __init__(self, workers: Workers, *, count: int, sources: Sequence[Source], wait: Callable[[], None]) -> None:
        """Start nothing yet.

        Args:
            workers: Starts and watches the workers.
            count: Number of workers at the same time.
            sources: The sources of the units, for the rejects of rows that kill workers.
            wait: Called about every `EVENT_SECONDS`; may raise to give up.
        """
        self._workers = workers
        self._count = count
        self._sources = sources
        self._wait = wait
        self._starting: set[int] = set()
        self._idle: list[int] = []
        self._busy: dict[int, Unit] = {}
        self._next: deque[Unit] = deque()  # the units of dead workers first, then a new one
        self._units: Iterator[Unit] = iter(())
        self._tries: Counter[str] = Counter()
        self._suspects: dict[str, _Suspect] = {}
        self._failed_starts = 0
        self._is_ending = False

    def run(self, units: Iterator[Unit]) -> Iterator[Receipt]:
        """Yield the receipts of units in the order of their arrival.

        After a receipt with an error, no further unit begins, and the units in progress are finished.

        Raises:
            UpsertCliError: No worker starts, or workers die with a unit whose number of rows is unknown.
        """
        self._units = units
        self._next.clear()
        self._is_ending = False
        while self._has_unit() or self._busy:
            while self._idle and self._has_unit():
                worker, unit = self._idle.pop(), self._next.popleft()
                self._busy[worker] = unit
                self._workers.give(worker, unit)
            while self._has_unit() and self._worker_count() < self._count:
                self._starting.add(self._workers.start())
            for event in self._workers.events(EVENT_SECONDS):
                receipt = self._handle(event)
                if receipt is not None:
                    if receipt.error is not None:
                        self._is_ending = True
                    elif receipt.rest is not None:
                        self._next.append(receipt.rest)
                    yield receipt
            self._wait()

    def _has_unit(self) -> bool:
        """Check that there is a unit to give to a worker; take the next one if no unit waits."""
        if not self._next and not self._is_ending:
            self._next.extend(itertools.islice(self._units, 1))
        return bool(self._next) and not self._is_ending

    def _worker_count(self) -> int:
        return len(self._starting) + len(self._idle) + len(self._busy)

    def _handle(self, event: Event) -> Receipt | None:
        """Return the receipt that an event brings, if any."""
        unit = self._busy.pop(event.worker, None)
        if event.death is not None:
            if unit is not None:
                return self._retry_or_halve(unit, event.death)
            self._bury(event.worker, event.death)
            return None
        self._idle.append(event.worker)
        if unit is not None and event.receipt is not None:
            return self._finish(unit, event.receipt)
        self._starting.remove(event.worker)
        self._failed_starts = 0
        return None

    def _bury(self, worker: int, reason: str) -> None:
        """Forget a worker that died without a unit."""
        if worker in self._idle:
            self._idle.remove(worker)
        elif worker in self._starting:
            self._starting.remove(worker)
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS:
                raise UpsertCliError(
                    message=f"{self._failed_starts} workers died one after the other before they were ready: {reason}; "
                    f"every machine of the cluster needs this version of upsert-cli in the Python that Ray runs there"
                )

    def _finish(self, unit: Unit, receipt: Receipt) -> Receipt | None:
        """Return the receipt of a unit; of a part of a suspect, only once all parts are done."""
        suspect = self._suspects.pop(unit.id, None)
        if receipt.error is not None:  # it ends the load
            return receipt if suspect is None else Receipt(unit=unit, error=receipt.error)
        if suspect is None:
            return receipt
        suspect.receipts.append(receipt)
        suspect.parts -= 1
        return suspect.whole_receipt() if suspect.parts == 0 else None

    def _retry_or_halve(self, unit: Unit, reason: str) -> Receipt | None:
        """Give a unit back after the death of its worker, whole or in halves, or reject its rows."""
        suspect = self._suspects.setdefault(unit.id, _Suspect(unit))
        suspect.deaths += 1
        self._tries[unit.id] += 1
        halves = unit.halves()
        allowed = TRIES if unit is suspect.unit else TRIES_ALONE if halves is None else 1
        if self._tries[unit.id] < allowed:
            self._next.appendleft(unit)
        elif halves is not None and suspect.deaths < MAX_DEATHS:
            del self._suspects[unit.id]
            suspect.parts += 1
            for half in reversed(halves):
                self._suspects[half.id] = suspect
                self._next.appendleft(half)
        else:
            return self._finish(unit, self._reject_rows(unit, suspect.deaths, reason))
        return None

    def _reject_rows(self, unit: Unit, deaths: int, reason: str) -> Receipt:
        """Return a receipt that rejects the rows of a unit, without their items: reading them may end this process."""
        source = self._sources[unit.start.source].name
        if unit.end is None:
            raise UpsertCliError(
                message=f"{deaths} workers died in the rows after row {unit.after} of {source}: {reason}; decompress "
                f"the file, so that it can be split and the row found, and look into Ray's logs"
            )
        rows = unit.only or range(unit.after + 1, unit.end + 1)
        rejects = [
            Reject(
                object_id=None,
                payload=None,
                item_info=None,
                detail=f"a worker that loads it dies: {without_secrets(reason)}",
                stage=Stage.OTHER,
                source=source,
                row=row,
            ).as_json()
            for row in rows
        ]
        counts = Counts(read=len(rejects), failed=len(rejects))
        return Receipt(unit=unit, counts=counts, rejects=rejects)
