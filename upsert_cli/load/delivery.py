"""Embedded batches -> written and settled ones, in the order of their rows, and up to the last one that was begun."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from upsert_cli.context import Progress
from upsert_cli.counts import Counts
from upsert_cli.errors import SourceChanged, SourceUnreadable, UpsertCliError
from upsert_cli.journal.rejects import RejectsFile
from upsert_cli.load.commit import Committer
from upsert_cli.load.observer import Observer
from upsert_cli.load.overlap import Delivered, Overlap
from upsert_cli.load.stages import Stages
from upsert_cli.load.write import Written, embedded_instead
from upsert_cli.pipeline.embedded_batch import Embedded
from upsert_cli.store.base import RecordRef
from upsert_cli.store.process import LAST_WRITE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One attempt's batches on their last way, looked after by the main thread."""

    overlap: Overlap
    rejects: RejectsFile
    committer: Committer
    stages: Stages
    progress: Progress
    observer: Observer

    is_shared: bool
    """Whether a server is written to, which may be left with what it was sent; what a folder is at has to end."""

    delete_stale_chunks: Callable[[Sequence[RecordRef]], None]
    """Takes out of the collection what a batch has left of its items' former records."""

    def run(
        self, stream: Generator[Embedded, None, None], *, wait: Callable[[], None], pulse: Callable[[], None]
    ) -> None:
        """Delivers all batches; the stream has to call `settle` while it has none to give.

        Args:
            stream: In the order of their rows.
            wait: Called while nothing is to be done; raises to stop.
            pulse: The same, but raises nothing.

        Raises:
            SourceUnreadable: A source broke off; every row before that is settled.
        """
        broken: UpsertCliError | None = None
        try:
            while True:
                if self.overlap.is_full:
                    self._await_first(wait)
                    continue
                try:
                    embedded = next(stream, None)
                except (SourceUnreadable, SourceChanged) as error:
                    embedded, broken = None, error
                if embedded is None:
                    break
                wait()  # what is not yet being written is dropped at a stop
                self.overlap.begin(embedded)
            while not self.overlap.is_empty:
                self._await_first(wait)
        except BaseException:
            self._finish(pulse)
            raise
        if broken is not None:
            raise broken

    def commit(self) -> None:
        """Settles what is written, up to the first batch that is not.

        Raises:
            UpsertCliError: That one cannot be written, or it cannot be settled; nothing behind it is settled then.
        """
        try:
            for delivered in self.overlap.delivered():
                self._settle(delivered)
        except BaseException:
            self.overlap.give_up()
            raise

    def _await_first(self, wait: Callable[[], None]) -> None:
        self.overlap.await_first()
        self.commit()
        wait()

    def _finish(self, pulse: Callable[[], None]) -> None:
        """Settles what was begun before the attempt ended, if it comes to its end."""
        self.stages.stop()
        until = time.monotonic() + (LAST_WRITE_SECONDS if self.is_shared else math.inf)
        while not self.overlap.is_empty and time.monotonic() < until:
            self.overlap.await_first()
            pulse()
            try:
                self.commit()
            except Exception:  # noqa: BLE001  # why the attempt ended is what counts, and is raised
                return

    def _settle(self, delivered: Delivered) -> None:
        batch = delivered.batch
        outcome = self.committer.outcome_of(delivered.written)
        self.delete_stale_chunks(outcome.stale)
        records = self.committer.commit(batch, outcome, self.rejects)
        self.stages.settled(batch, write_seconds=delivered.seconds)
        self._count(delivered.written, outcome.counts)
        self.progress.counts = self.committer.checkpoint.counts
        self.progress.seconds |= self.overlap.seconds()
        if records:
            self.observer.rejected(records)
        self.observer.progressed(self.progress)
        if not self.committer.is_retry:  # a retry begins with all failures that there were
            self.committer.check_failures()

    def _count(self, written: Sequence[Written], counts: Counts) -> None:
        self.progress.embedded += embedded_instead(written)
        self.progress.written += counts.inserted + counts.updated
        self.progress.settled += counts.read
