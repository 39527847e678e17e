"""How many rows make a batch: as many as settle in a few seconds by the speed that was measured so far."""

from __future__ import annotations

import threading

MIN_ROWS = 64  # rows; below, Chroma's cost a row doubles (measured)
MAX_ROWS = 512  # rows; Chroma's index survives kill -9 best with writes of at most so many (measured)
GROWTH = 4  # times that a batch may be larger than the one before
STEP = 0.05  # seconds; the longest that a stage sleeps before it looks whether it should end
TARGET_SECONDS = 3.0  # seconds a batch; CI systems grant 7.5 s between SIGINT and SIGTERM


class Pace:
    """How many rows the next batch takes, so that it settles in about `TARGET_SECONDS` on this machine."""

    def __init__(self, fixed_rows: int | None = None) -> None:
        """Starts small, since nothing is known yet about the speed; `fixed_rows` is the user's own choice."""
        self._fixed = fixed_rows is not None
        self._row_seconds: dict[str, float] = {}
        self._known = threading.Event()
        self.rows = fixed_rows if fixed_rows is not None else MIN_ROWS

    def learn(self, stage: str, rows: int, seconds: float) -> None:
        """Learns that `rows` rows kept a stage busy for `seconds`; the slowest stage counts."""
        if self._fixed:
            return
        self._known.set()
        if rows == 0:  # nothing was left of the batch, which tells nothing of the speed
            return
        self._row_seconds[stage] = seconds / rows
        fitting = int(TARGET_SECONDS / max(*self._row_seconds.values(), TARGET_SECONDS / MAX_ROWS))
        # No faster than fourfold: one lucky batch, of unchanged rows say, tells nothing about the next.
        self.rows = max(MIN_ROWS, min(fitting, GROWTH * self.rows))

    def await_first(self, ending: threading.Event) -> None:
        """Waits until something is known, lest a file is in batches of the smallest size before the first is done."""
        while not (self._fixed or ending.is_set() or self._known.wait(STEP)):
            continue
