"""Finds the rows that make a call on many rows fail, by halving; all other rows go through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def failing_rows(
    rows: Sequence[T],
    call: Callable[[Sequence[T]], None],
    *,
    is_data_fault: Callable[[BaseException], bool],
) -> list[tuple[T, BaseException]]:
    """Calls `call` on all rows, in parts where it has to be, and returns the rows that fail even alone.

    A call that failed may still have done its work, so `call` has to be one that may be repeated. Of n rows, k bad
    ones cost about 2 k log2(n) further calls. Where no row fails alone, though all of them did together, all are good.

    Args:
        rows: Any number, none included.
        call: Raises where one of the rows it was given, or their number, is at fault.
        is_data_fault: Tells whether an error may be the fault of a row; any other is raised at once.

    Returns:
        Each failing row, in order, and what it failed with.
    """
    if not rows:
        return []
    try:
        call(rows)
    except BaseException as error:
        if not is_data_fault(error):
            raise
        fault = error
    else:
        return []
    if len(rows) == 1:
        return [(rows[0], fault)]
    middle = len(rows) // 2
    # Outside of the except block, so that the errors of the parts do not drag a chain of all calls behind them.
    return [
        *failing_rows(rows[:middle], call, is_data_fault=is_data_fault),
        *failing_rows(rows[middle:], call, is_data_fault=is_data_fault),
    ]
