"""Units are given out until each has one receipt, even if workers die, and a bad row costs no other row."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.worker_standin import StandIns
from upsert_cli.cluster.scheduler import Event, Scheduler
from upsert_cli.counts import Counts
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.receipts import Loaded, Receipt
from upsert_cli.sources.fingerprint import Fingerprint
from upsert_cli.sources.item import Position
from upsert_cli.sources.rows import Unit
from upsert_cli.sources.source import Source

ROWS = 200
SOURCE = Source(
    name="a.jsonl",
    path=Path("/a.jsonl"),
    format="jsonl",
    fingerprint=Fingerprint(size=1, mtime_ns=0, digest="d"),
    total=ROWS,
)


def _unit(after: int, end: int | None) -> Unit:
    return Unit(digest="d", start=Position(0, after, 0), after=after, end=end)


def _rows(unit: Unit) -> list[int]:
    return list(range(unit.after + 1, (ROWS if unit.end is None else unit.end) + 1))


def _run(unit: Unit) -> Receipt:
    rows = _rows(unit)
    ids = [(b"%d" % row, Loaded(row, inserted=True, unchanged=False)) for row in rows]
    return Receipt(unit=unit, counts=Counts(read=len(rows), inserted=len(rows)), ids=ids)


def _dispatch(workers: StandIns, *, count: int = 3) -> Scheduler:
    return Scheduler(workers, count=count, sources=[SOURCE], wait=lambda: None)


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), max_size=5),
    deadly=st.sets(st.integers(1, ROWS), max_size=3),
    accidents=st.integers(0, 10),
    count=st.integers(1, 4),
    chance=st.randoms(use_true_random=False),
)
def test_each_row_is_committed_once(
    sizes: list[int], deadly: set[int], accidents: int, count: int, chance: Random
) -> None:
    """Just the rows that kill are rejected, all others are loaded, and each unit has one receipt with all of its rows."""
    units = [_unit(sum(sizes[:place]), sum(sizes[: place + 1])) for place in range(len(sizes))]
    left = [accidents]

    def dies(unit: Unit) -> bool:
        if left[0] and chance.random() < 0.2:
            left[0] -= 1
            return True
        return not deadly.isdisjoint(_rows(unit))

    workers = StandIns(_run, dies=dies)
    receipts = list(_dispatch(workers, count=count).run(iter(units)))
    assert sorted(receipt.unit.id for receipt in receipts) == sorted(unit.id for unit in units)
    total = sum(sizes)
    counted = [one.row for receipt in receipts for _, one in receipt.ids]
    rejected = [record["row"] for receipt in receipts for record in receipt.rejects]
    assert sorted(counted + rejected) == list(range(1, total + 1))
    expected = {row for row in deadly if row <= total}
    assert expected <= set(rejected)
    if not accidents:
        assert expected == set(rejected)
    counts = sum((receipt.counts for receipt in receipts), Counts())
    assert counts.reconciles()
    assert counts.read == total


def test_the_parts_of_a_unit_may_end_in_any_order() -> None:
    """If two parts loaded at the same time share an id, both are reported and the later row is loaded again."""
    left = [3]

    def run(unit: Unit) -> Receipt:
        ids = [(b"same", Loaded(row, inserted=True, unchanged=False)) for row in _rows(unit)]
        return Receipt(unit=unit, counts=Counts(read=len(ids), inserted=len(ids)), ids=ids[-1:])

    def dies(_: Unit) -> bool:
        left[0] -= 1
        return left[0] >= 0

    [receipt] = _dispatch(StandIns(run, dies=dies), count=2).run(iter([_unit(0, 8)]))
    assert sorted(one.row for _, one in receipt.ids) == [4, 8]


def test_one_deadly_row_ends_few_workers() -> None:
    """A row that kills its worker is found after about twenty deaths, and reported with its position and the reason."""
    workers = StandIns(_run, dies=lambda unit: 137 in _rows(unit))
    [receipt] = _dispatch(workers).run(iter([_unit(0, ROWS)]))
    [reject] = receipt.rejects
    assert (reject["source"], reject["row"], reject["failure_stage"]) == ("a.jsonl", 137, "other")
    assert reject["detail"] == "a worker that loads it dies: SIGSEGV"
    assert receipt.counts == Counts(read=ROWS, inserted=ROWS - 1, failed=1)
    assert workers.started < 25


def test_a_unit_that_always_kills_is_given_up() -> None:
    """Where every row kills, the workers that die are bounded and all rows are rejected; other units are loaded."""
    workers = StandIns(_run, dies=lambda unit: unit.after < 100)
    first, second = sorted(
        _dispatch(workers).run(iter([_unit(0, 100), _unit(100, ROWS)])), key=lambda receipt: receipt.unit.after
    )
    assert [record["row"] for record in first.rejects] == list(range(1, 101))
    assert second.counts.inserted == 100
    assert workers.started < 250


@pytest.mark.parametrize("row", [30, 3_000, 30_000])
def test_an_open_unit_with_a_deadly_row(row: int) -> None:
    """In a file that cannot be cut into units, a deadly row is found at any position."""

    def run(unit: Unit) -> Receipt:
        rows = (40_000 if unit.end is None else unit.end) - unit.after
        return Receipt(unit=unit, counts=Counts(read=rows, inserted=rows))

    def dies(unit: Unit) -> bool:
        return unit.after < row and (unit.end is None or row <= unit.end)

    workers = StandIns(run, dies=dies)
    [receipt] = _dispatch(workers).run(iter([_unit(0, None)]))
    assert [record["row"] for record in receipt.rejects] == [row]
    assert receipt.counts == Counts(read=40_000, inserted=39_999, failed=1)


def test_an_open_unit_that_always_kills_ends_the_load() -> None:
    """If a file that cannot be cut always kills its worker, the load fails, since the lost rows are unknown."""
    workers = StandIns(_run, dies=lambda _: True)
    with pytest.raises(UpsertCliError, match=r"in the rows after row \d+ of a\.jsonl: SIGSEGV"):
        list(_dispatch(workers).run(iter([_unit(0, None)])))


def test_the_rest_of_an_open_unit_is_loaded() -> None:
    """A unit that a worker left in its middle is gone on with, in as many receipts as it takes."""

    def run(unit: Unit) -> Receipt:
        rest = unit.rest_from(Position(0, unit.after + 50, 9)) if unit.after < 150 else None
        return Receipt(unit=unit, counts=Counts(read=50, inserted=50), rest=rest)

    receipts = list(_dispatch(StandIns(run)).run(iter([_unit(0, None)])))
    assert [receipt.unit.after for receipt in receipts] == [0, 50, 100, 150]


def test_errors_come_back_as_they_are() -> None:
    """A fault that belongs to no item is passed on unchanged and at once."""
    error = UpsertCliError(message="no memory")
    workers = StandIns(lambda unit: Receipt(unit=unit, error=error))
    [receipt] = _dispatch(workers).run(iter([_unit(0, ROWS)]))
    assert receipt.error is error


class _StillBorn(StandIns):
    def start(self) -> int:
        number = super().start()
        self._events.pop()
        self._events.append(Event(number, death="no module named upsert_cli"))
        return number


def test_workers_that_never_come_up_end_the_load() -> None:
    """If no worker can start, the load ends soon and names the reason."""
    with pytest.raises(UpsertCliError, match="no module named upsert_cli"):
        list(_dispatch(_StillBorn(_run)).run(iter([_unit(0, ROWS)])))


class _OneSlow(StandIns):
    def start(self) -> int:
        number = super().start()
        if number == 1:
            self._events.pop()
        return number


def test_a_slow_worker_delays_no_other() -> None:
    """A worker that never becomes ready gets no unit, and the others load all of them."""
    workers = _OneSlow(_run)
    receipts = list(_dispatch(workers, count=2).run(iter([_unit(0, 100), _unit(100, ROWS)])))
    assert sum(receipt.counts.read for receipt in receipts) == ROWS
    assert workers.started == 2


class _Idle(StandIns):
    def events(self, seconds: float) -> list[Event]:
        return list(super().events(seconds)) if self.started and not self._given else []


def test_waiting_is_interrupted() -> None:
    """Waiting for workers that do not answer can be interrupted at any moment."""
    looks = iter(range(5))

    def wait() -> None:
        if next(looks, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Scheduler(_Idle(_run), count=1, sources=[SOURCE], wait=wait).run(iter([_unit(0, ROWS)])))
