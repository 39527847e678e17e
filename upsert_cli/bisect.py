"""Bisection: find the rows that make a call on many rows fail, so that all other rows go through."""

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
    """Call a function on all rows, on their halves if that fails, and return the rows that fail alone.

    A failed call may have done its work, so `call` must be repeatable. k bad rows of n cost about 2 k log2(n) further
    calls. If all rows fail together but no row fails alone, all rows are good.

    Args:
        rows: The rows, which may be none.
        call: Raises if one of its rows, or their number, is at fault.
        is_data_fault: Returns whether a row may have caused an error; any other error is raised at once.

    Returns:
        Each failing row, in order, with its error.
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
    # Outside of the except block, so that the errors of the halves do not carry a chain of all calls.
    return [
        *failing_rows(rows[:middle], call, is_data_fault=is_data_fault),
        *failing_rows(rows[middle:], call, is_data_fault=is_data_fault),
    ]
