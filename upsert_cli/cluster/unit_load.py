"""A load in units: gives the units of a task's sources to workers, and saves their receipts in the journal.

A unit is done when its receipt is in the journal, after the store has acknowledged all of its records. A restart loads
the units without a receipt. Only this process writes to the journal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from upsert_cli.cluster.scheduler import Scheduler
from upsert_cli.cluster.worker import UnitReceipt
from upsert_cli.context import RunContext
from upsert_cli.errors import SourceUnreadable, UpsertCliError
from upsert_cli.journal.receipts import Receipt, Receipts
from upsert_cli.journal.rejects import JsonLines
from upsert_cli.load.commit import Committer
from upsert_cli.load.observer import Observer
from upsert_cli.pipeline.batch import NOTHING_IGNORED
from upsert_cli.sources.source import Source
from upsert_cli.sources.units import UNIT_ROWS, Unit, plan_units


class UnitLoad:
    """The load of a task in units."""

    def __init__(
        self,
        sources: Sequence[Source],
        committer: Committer,
        receipts: Receipts,
        *,
        context: RunContext,
        observer: Observer,
    ) -> None:
        """Read nothing yet.

        Args:
            sources: Sources of the task.
            committer: Brought up to date by the receipts.
            receipts: Receipts of the units that are done.
            context: Its progress counts the receipts.
            observer: Notified of rejects.
        """
        self._sources = sources
        self._committer = committer
        self._receipts = receipts
        self._context = context
        self._progress = context.progress
        self._observer = observer
        self._broken: SourceUnreadable | None = None
        self.ignored = NOTHING_IGNORED  # fields of the rows that were read

    def run(self, start_scheduler: Callable[[], Scheduler]) -> None:
        """Load the units without a receipt.

        Args:
            start_scheduler: Returns the scheduler of the workers; called only if there is a unit to load.

        Raises:
            SourceUnreadable: A source broke off; every row before that is committed.
            UpsertCliError: A worker met another error that belongs to no item.
        """
        committer, receipts = self._committer, self._receipts
        committer.restore(receipts.total(), receipts.rejects())
        self._progress.continue_after(committer.rows, committer.checkpoint.counts)
        todo = self._without_receipt()
        first = next(todo, None)
        scheduler = None
        if first is not None:
            scheduler = start_scheduler()
            with committer.open_rejects() as rejects:
                for receipt in scheduler.run(itertools.chain([first], todo)):
                    self._commit(receipt, rejects)
        self._progress.stage = "repeats"
        repeats = self._repeats()
        first = next(repeats, None)
        if first is not None:
            for receipt in (scheduler or start_scheduler()).run(itertools.chain([first], repeats)):
                self._check_repeat(receipt)
        # So far in the order of their arrival; a retry needs the order of the rows.
        total = receipts.total()
        exact = replace(total, counts=total.counts + receipts.correction())
        committer.restore(exact, receipts.rejects())
        self._progress.counts = committer.checkpoint.counts
        if self._broken is not None:
            raise self._broken

    def _without_receipt(self) -> Iterator[Unit]:
        try:
            for planned in plan_units(self._sources):
                unit: Unit | None = planned
                while unit is not None and (body := self._receipts.body(unit.id)) is not None:
                    unit = None if body["rest"] is None else Unit.from_json(body["rest"])
                if unit is not None:
                    yield unit
        except SourceUnreadable as error:
            self._broken = self._broken or error

    def _commit(self, done: UnitReceipt, rejects: JsonLines) -> None:
        if isinstance(done.error, SourceUnreadable):
            self._broken = self._broken or done.error
            if not done.counts.read:
                return
        elif done.error is not None:
            raise done.error
        unit = done.unit
        ended = unit if done.rest is None else replace(unit, end=done.rest.after)
        receipt = Receipt(
            unit=unit.id,
            source=unit.start.source,
            row=unit.after,
            body={"unit": ended.as_json(), "rest": None if done.rest is None else done.rest.as_json()},
            counts=done.counts,
            converted=done.converted,
            rejects=list(done.rejects),
            ids=done.ids,
        )
        self.ignored += done.ignored
        self._receipts.add(receipt)
        self._committer.commit_unit(receipt, rejects)
        for name, seconds in done.seconds.items():
            self._progress.add(name, seconds)
        self._count(done)
        if done.rejects:
            self._observer.rejected(done.rejects)
        self._committer.check_failures()

    def _count(self, done: UnitReceipt) -> None:
        progress, counts = self._progress, done.counts
        progress.read += counts.read
        progress.embedding_passed += counts.read
        progress.committed += counts.read
        progress.embedded += done.embedded
        progress.written += counts.inserted + counts.updated
        progress.counts = self._committer.checkpoint.counts

    # -- repeated ids -----------------------------------------------------------------------------------------------

    def _repeats(self) -> Iterator[Unit]:
        """Yield the last row of each id that several units loaded, so that it wins whichever unit was written last."""
        for body, places in itertools.groupby(self._receipts.repeated(), key=lambda found: found[0]):
            unit = Unit.from_json(body["unit"])
            while rows := tuple(row for _, row in itertools.islice(places, UNIT_ROWS)):
                yield replace(unit, only=rows)

    def _check_repeat(self, done: UnitReceipt) -> None:
        if done.error is not None:
            raise done.error
        # The row is counted already; only the order of writing was open.
        if done.rejects:
            record = done.rejects[0]
            raise UpsertCliError(
                message=f"{record['source']}:{record['row']} is the last row of a repeated id and could not be written "
                f"once more, so that it wins: {record['detail']}; fix the cause, then restart the task"
            )
