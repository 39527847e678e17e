"""Calls that fail for a moment are made again: with back-off and jitter, for a time that has an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

FIRST_PAUSE = 0.1  # seconds; the pause before the second try is random and about this long
RETRY_FOR = 300.0  # seconds; for which a request that a server fails on is made again, unless told otherwise
LONGEST_PAUSE = 5.0  # seconds between two tries, unless the other side asks for more

_T = TypeVar("_T")


def patiently(
    call: Callable[[], _T],
    *,
    is_passing: Callable[[BaseException], bool],
    seconds: float,
    asked_pause: Callable[[BaseException], float] = lambda _: 0.0,
    told: Callable[[BaseException, float], None] = lambda *_: None,
) -> _T:
    """Calls until it works, until it fails for good, or until the time is over, and then raises the last error.

    Args:
        call: May be made any number of times.
        is_passing: Tells whether the same call may work a moment later.
        seconds: From the first try to the last; a pause that would end later is not begun.
        asked_pause: Seconds that the other side asks to be left alone, by an error.
        told: Called before each pause with the error and the seconds of the pause.
    """
    from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

    backing_off = wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE)

    def pause(state: RetryCallState) -> float:
        return max(backing_off(state), asked_pause(_error_of(state)))

    retrying = Retrying(
        retry=retry_if_exception(is_passing),
        wait=pause,
        stop=stop_before_delay(seconds),
        before_sleep=lambda state: told(_error_of(state), state.upcoming_sleep),
        reraise=True,
    )

    def _error_of(state: RetryCallState) -> BaseException:
        error = state.outcome.exception() if state.outcome is not None else None
        return error if error is not None else RuntimeError("a call is repeated although it worked")

    return retrying(call)
