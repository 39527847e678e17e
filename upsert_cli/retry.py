"""Retries of calls that fail for a reason that may pass, with back-off, jitter and a time limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

FIRST_PAUSE = 0.1  # seconds; the pause before the second try is random and about this long
RETRY_FOR = 300.0  # seconds; how long to keep retrying failed server requests by default
LONGEST_PAUSE = 5.0  # seconds between two tries, unless the server asks for more

_T = TypeVar("_T")


def call_with_retries(
    call: Callable[[], _T],
    *,
    is_passing: Callable[[BaseException], bool],
    seconds: float,
    asked_pause: Callable[[BaseException], float] = lambda _: 0.0,
    before_pause: Callable[[BaseException, float], None] = lambda *_: None,
) -> _T:
    """Call a function, and repeat the call while its error may pass; at the end raise the last error.

    Args:
        call: A function that may be called again.
        is_passing: Returns whether the same call may work a moment later.
        seconds: The time from the first try to the last one.
        asked_pause: Returns the seconds of pause that an error asks for.
        before_pause: Called with the error and the seconds of each pause.
    """
    from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay, wait_random_exponential

    backing_off = wait_random_exponential(multiplier=FIRST_PAUSE, max=LONGEST_PAUSE)

    def error_of(state: RetryCallState) -> BaseException:
        error = state.outcome.exception() if state.outcome is not None else None
        return error if error is not None else RuntimeError("a call is repeated although it worked")

    retrying = Retrying(
        retry=retry_if_exception(is_passing),
        wait=lambda state: max(backing_off(state), asked_pause(error_of(state))),
        stop=stop_before_delay(seconds),
        before_sleep=lambda state: before_pause(error_of(state), state.upcoming_sleep),
        reraise=True,
    )
    return retrying(call)
