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
from upsert_cli.journal.receipts import Loaded, Receipt, Receipts, follow
from upsert_cli.journal.rejects import rewrite_rejects


def _receipt(
    unit: str, *, source: int = 0, row: int = 0, rejected: int = 0, ids: dict[bytes, int] | None = None
) -> Receipt:
    loaded = [(digest, Loaded(place, inserted=True, unchanged=False)) for digest, place in (ids or {}).items()]
    rejects = [{"source": "a.jsonl", "row": row + 1 + place, "detail": "é\ud800"} for place in range(rejected)]
    counts = Counts(read=4 + rejected, inserted=4, failed=rejected)
    body = {"unit": unit, "end": None}
    return Receipt(
        unit=unit,
        source=source,
        row=row,
        body=body,
        counts=counts,
        converted=Converted({"tags": 2}),
        rejects=rejects,
        ids=loaded,
    )


def test_receipts_are_kept(tmp_path: Path) -> None:
    """Added receipts are there when the file is opened again; it is private, and its rejects make a rejects file."""
    path = tmp_path / "new" / "a?b#c.units"
    with Receipts.open_at(path) as receipts:
        receipts.add(_receipt("0:x:9-", row=9, rejected=2))
        receipts.add(_receipt("0:x:0-9", rejected=1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Receipts.open_at(path) as receipts:
        assert receipts.body("0:x:9-") == {"unit": "0:x:9-", "end": None}
        assert receipts.body("0:x:0-") is None
        assert receipts.total() == (Counts(read=11, inserted=8, failed=3), Converted({"tags": 4}))
        assert [reject["row"] for bundle in receipts.rejects() for reject in bundle] == [1, 10, 11]
        length = rewrite_rejects(tmp_path / "rejects.jsonl", receipts.rejects())
        assert length == (tmp_path / "rejects.jsonl").stat().st_size
    path.unlink()
    assert not path.exists()


def test_a_unit_has_one_receipt(tmp_path: Path) -> None:
    """A second receipt of a unit is refused as a whole, and the first one stays."""
    with Receipts.open_at(tmp_path / "a.units") as receipts:
        receipts.add(_receipt("0:x:0-9", ids={b"a": 3}))
        with pytest.raises(JournalUnwritable):
            receipts.add(_receipt("0:x:0-9", ids={b"b": 4}))
        receipts.add(_receipt("0:x:9-", row=9, ids={b"b": 12}))
        assert receipts.total()[0].read == 8
        assert list(receipts.repeated()) == []


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
        made.append(_receipt(str(number), source=source, row=begin, ids=places))
    order.shuffle(made)
    path = tmp_path_factory.getbasetemp() / "repeated.units"
    path.unlink(missing_ok=True)
    with Receipts.open_at(path) as receipts:
        for receipt in made:
            receipts.add(receipt)
        found = [(body["unit"], row) for body, row in receipts.repeated()]
    expected = sorted(last[identifier] for identifier, numbers in seen.items() if len(numbers) > 1)
    assert found == [(str(number), row) for _, number, row in expected]


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
        digest = bytes([identifier])
        is_new = found == "inserted" and digest not in ids[unit]  # within a unit rows are loaded one after the other
        counted_as = "updated" if found == "inserted" and not is_new else found
        follow(ids[unit], {digest: Loaded(row, is_new, counted_as == "unchanged")})
        sums[unit] += Counts(**{"read": 1, counted_as: 1})
        if is_new or is_empty:
            new.add(digest)
    path = tmp_path_factory.getbasetemp() / "counted.units"
    path.unlink(missing_ok=True)
    with Receipts.open_at(path) as receipts:
        receipts.begin(is_empty=is_empty)
        for unit, counts in enumerate(sums):
            receipts.add(replace(_receipt(str(unit), source=unit), counts=counts, ids=[*ids[unit].items()]))
    with Receipts.open_at(path) as receipts:
        receipts.begin(is_empty=not is_empty)  # by then the collection tells nothing about the beginning
        total = receipts.total()[0] + receipts.correction()
    assert total.inserted == len(new)
    assert total.read == len(rows)
    assert total.reconciles()
    assert min(total.as_json().values()) >= 0
