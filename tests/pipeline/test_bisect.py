"""Halving: exactly the bad rows are found, and every good one goes through."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upsert_cli.bisect import failing_rows


class Store:
    """Takes rows all or none, as Chroma does; counts the calls."""

    def __init__(self, bad: set[int], *, at_most: int | None = None) -> None:
        self.bad = bad
        self.at_most = at_most
        self.taken: list[int] = []
        self.calls = 0

    def __call__(self, rows: Sequence[int]) -> None:
        self.calls += 1
        if self.at_most is not None and len(rows) > self.at_most:
            raise ValueError("too many")
        if found := self.bad.intersection(rows):
            raise ValueError(f"bad: {min(found)}")
        self.taken.extend(rows)


def _is_value_error(error: BaseException) -> bool:
    return isinstance(error, ValueError)


@given(count=st.integers(0, 70), data=st.data())
def test_finds_the_bad_rows_and_no_other(count: int, data: st.DataObject) -> None:
    """The bad rows are returned in order with their own reasons, and every other row is taken once."""
    bad = data.draw(st.sets(st.integers(0, max(count - 1, 0)))) & set(range(count))
    store = Store(bad)
    failing = failing_rows(range(count), store, is_data_fault=_is_value_error)
    assert [(row, str(error)) for row, error in failing] == [(row, f"bad: {row}") for row in sorted(bad)]
    assert store.taken == [row for row in range(count) if row not in bad]


def test_one_bad_row_costs_few_calls() -> None:
    """One bad row of 512 takes some 2 log2(512) calls, not 512."""
    store = Store({137})
    failing_rows(range(512), store, is_data_fault=_is_value_error)
    assert store.calls <= 2 * math.log2(512) + 1


def test_rows_that_fail_only_together_are_good() -> None:
    """Where the number of rows is the fault, smaller parts go through and no row is blamed."""
    store = Store(set(), at_most=10)
    assert failing_rows(range(100), store, is_data_fault=_is_value_error) == []
    assert store.taken == list(range(100))


def test_other_errors_end_it_at_once() -> None:
    """An error that is no row's fault is raised by the first call that meets it."""
    store = Store(set())
    store.bad = {3}
    with pytest.raises(ValueError, match="bad: 3"):
        failing_rows(range(8), store, is_data_fault=lambda error: isinstance(error, TypeError))
    assert store.calls == 1
