"""Number of rows in a batch: as many as are committed in a few seconds at the measured speed."""

from __future__ import annotations

import threading

from upsert_cli.pipeline.prefetch import STEP_SECONDS

MIN_ROWS = 64  # rows; below, Chroma's cost a row doubles (measured)
MAX_ROWS = 512  # rows; Chroma's index survives kill -9 best with writes of at most so many (measured)
GROWTH = 4  # times that a batch may be larger than the one before
TARGET_SECONDS = 3.0  # seconds a batch; CI systems grant 7.5 s between SIGINT and SIGTERM


class Pace:
    """The size of the next batch, so that it is committed in about `TARGET_SECONDS` on this machine."""

    def __init__(self, fixed_rows: int | None = None) -> None:
        """Start small, since the speed is unknown, or with a number that the user chose."""
        self._fixed = fixed_rows is not None
        self._row_seconds: dict[str, float] = {}
        self._known = threading.Event()
        self.rows = fixed_rows if fixed_rows is not None else MIN_ROWS

    def learn(self, stage: str, rows: int, seconds: float) -> None:
        """Record the seconds that a stage spent on a number of rows; the slowest stage counts."""
        if self._fixed:
            return
        self._known.set()
        if rows == 0:  # no row was left in the batch, which says nothing about the speed
            return
        self._row_seconds[stage] = seconds / rows
        fitting = int(TARGET_SECONDS / max(*self._row_seconds.values(), TARGET_SECONDS / MAX_ROWS))
        # At most fourfold: one lucky batch, for example of unchanged rows, says nothing about the next.
        self.rows = max(MIN_ROWS, min(fitting, GROWTH * self.rows))

    def await_first(self, stopping: threading.Event) -> None:
        """Wait for the first measurement; otherwise a whole file would be read in batches of the smallest size."""
        while not (self._fixed or stopping.is_set() or self._known.wait(STEP_SECONDS)):
            continue
