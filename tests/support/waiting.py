"""Waiting for a condition instead of a time."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS = 120.0  # seconds after which a test gives up
STEP_SECONDS = 0.01  # seconds between two looks


def wait_until(condition: Callable[[], object], *, seconds: float = SECONDS) -> None:
    """Wait until a condition holds; fail the test if it takes too long."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"it did not happen in {seconds:.0f} seconds"
        time.sleep(STEP_SECONDS)
