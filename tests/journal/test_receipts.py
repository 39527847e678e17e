"""The receipts of units survive a crash, are read in the order of the rows, and find repeated ids."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from upsert_cli.counts import Converted, Counts
from upsert_cli.errors import JournalUnwritable
from upsert_cli.journal.receipts import Loaded, Receipt, Receipts, digest_of, follow
from upsert_cli.journal.rejects import rewrite_rejects
from upsert_cli.sources.item import Position
from upsert_cli.sources.rows import Unit


def _unit(*, source: int = 0, after: int = 0, end: int | None = None) -> Unit:
    return Unit(digest="x", start=Position(source, after, 0), after=after, end=end)


def _receipt(unit: Unit, *, rejected: int = 0, ids: dict[bytes, int] | None = None) -> Receipt:
    loaded = [(digest, Loaded(place, inserted=True, unchanged=False)) for digest, place in (ids or {}).items()]
    rejects = [{"source": "a.jsonl", "row": unit.after + 1 + place, "detail": "é\ud800"} for place in range(rejected)]
    counts = Counts(read=4 + rejected, inserted=4, failed=rejected)
    return Receipt(unit=unit, counts=counts, converted=Converted({"tags": 2}), rejects=rejects, ids=loaded)


def test_receipts_are_kept(tmp_path: Path) -> None:
    """Added receipts are there when the file is opened again; it is private, and its rejects make a rejects file."""
    path = tmp_path / "new" / "a?b#c.units"
    with Receipts.open_at(path) as receipts:
        receipts.add(_receipt(_unit(after=9), rejected=2))
        receipts.add(_receipt(_unit(end=9), rejected=1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Receipts.open_at(path) as receipts:
        assert receipts.left_of(_unit(after=9)) is None
        assert receipts.left_of(_unit()) == _unit()
        assert receipts.total() == (Counts(read=11, inserted=8, failed=3), Converted({"tags": 4}))
        assert [reject["row"] for bundle in receipts.rejects() for reject in bundle] == [1, 10, 11]
        length = rewrite_rejects(tmp_path / "rejects.jsonl", receipts.rejects())
        assert length == (tmp_path / "rejects.jsonl").stat().st_size
    path.unlink()
    assert not path.exists()


def test_a_unit_has_one_receipt(tmp_path: Path) -> None:
    """A second receipt of a unit is refused as a whole, and the first one stays."""
    with Receipts.open_at(tmp_path / "a.units") as receipts:
        receipts.add(_receipt(_unit(end=9), ids={b"a": 3}))
        with pytest.raises(JournalUnwritable):
            receipts.add(_receipt(_unit(end=9), ids={b"b": 4}))
        receipts.add(_receipt(_unit(after=9), ids={b"b": 12}))
        assert receipts.total()[0].read == 8
        assert list(receipts.repeated()) == []


def test_the_rest_of_a_unit_is_left(tmp_path: Path) -> None:
    """A unit that ended early leaves its rest, and a rest that ended early leaves its own."""
    whole = _unit()
    first, second = (whole.rest_from(Position(0, row, 0)) for row in (5, 8))
    with Receipts.open_at(tmp_path / "a.units") as receipts:
        receipts.add(replace(_receipt(whole, ids={b"a": 3}), rest=first))
        assert receipts.left_of(whole) == first
        receipts.add(replace(_receipt(first, ids={b"a": 7}), rest=second))
        assert receipts.left_of(whole) == second
        receipts.add(_receipt(second, ids={b"a": 9}))
        assert receipts.left_of(whole) is None
        assert list(receipts.repeated()) == [(second, 9)]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """Receipts that cannot be read end in an error with the path."""
    path = tmp_path / "a.units"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(JournalUnwritable, match=r"a\.units"):
        Receipts.open_at(path)


@settings(max_examples=25, deadline=None)
@given(
    units=st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=6),
    order=st.randoms(use_true_random=False),
    sources=st.integers(1, 3),
)
def test_repeated_ids(
    tmp_path_factory: pytest.TempPathFactory, units: list[list[int]], order: Random, sources: int
) -> None:
    """The very last row of each repeated id is yielded with its unit, in order, whatever order the units were done in."""
    row = dict.fromkeys(range(sources), 0)
    made: list[Receipt] = []
    last: dict[int, tuple[int, int, int]] = {}
    seen: dict[int, set[int]] = {}
    for number, ids in enumerate(units):
        source = number * sources // max(1, len(units))
        begin, places = row[source], dict[bytes, int]()
        for identifier in ids:
            row[source] += 1
            places[bytes([identifier])] = row[source]
            last[identifier] = (source, number, row[source])
            seen.setdefault(identifier, set()).add(number)
        row[source] += 1  # a row that was rejected
        made.append(_receipt(_unit(source=source, after=begin, end=row[source]), ids=places))
    units_of = [receipt.unit for receipt in made]
    order.shuffle(made)
    path = tmp_path_factory.getbasetemp() / "repeated.units"
    path.unlink(missing_ok=True)
    with Receipts.open_at(path) as receipts:
        for receipt in made:
            receipts.add(receipt)
        found = list(receipts.repeated())
    expected = sorted(last[identifier] for identifier, numbers in seen.items() if len(numbers) > 1)
    assert found == [(units_of[number], row) for _, number, row in expected]


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from(["inserted", "updated", "unchanged"]))
    ),
    is_empty=st.booleans(),
)
def test_each_new_record_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, str]], is_empty: bool
) -> None:
    """The sum counts a new record once, even if several units found it new, or none because one died after writing it."""
    ids: list[dict[bytes, Loaded]] = [{} for _ in range(4)]
    sums = [Counts()] * len(ids)
    new = set()
    for row, (identifier, unit, found) in enumerate(rows, 1):
        name = str(identifier)
        digest = digest_of(name)
        is_new = found == "inserted" and digest not in ids[unit]  # within a unit rows are loaded one after the other
        counted_as = "updated" if found == "inserted" and not is_new else found
        follow(ids[unit], [(name, Loaded(row, is_new, counted_as == "unchanged"))])
        sums[unit] += Counts(**{"read": 1, counted_as: 1})
        if is_new or is_empty:
            new.add(digest)
    path = tmp_path_factory.getbasetemp() / "counted.units"
    path.unlink(missing_ok=True)
    with Receipts.open_at(path) as receipts:
        receipts.begin(is_empty=is_empty)
        for unit, counts in enumerate(sums):
            receipts.add(replace(_receipt(_unit(source=unit)), counts=counts, ids=[*ids[unit].items()]))
    with Receipts.open_at(path) as receipts:
        receipts.begin(is_empty=not is_empty)  # by then the collection tells nothing about the beginning
        total = receipts.total()[0] + receipts.correction()
    assert total.inserted == len(new)
    assert total.read == len(rows)
    assert total.reconciles()
    assert min(total.as_json().values()) >= 0
