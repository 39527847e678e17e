"""The remaining time of a load, smoothed, so that it can be trusted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

KNOWN_SECONDS = 2.0  # seconds of commits before a rate is trusted
MEMORY_SECONDS = 30.0  # seconds after which a batch counts for a third (1/e) of the newest
MEMORY_SHARE = 0.25  # of the time measured so far; the longer a load runs, the less one slow batch counts
PULL_SHARE = 0.1  # of the remaining time: how long the shown time takes to follow a new estimate
MIN_PULL, MAX_PULL = 1.0, 15.0  # seconds; the bounds of that time

Clock = Callable[[], float]


class RemainingTime:
    """The rate of a load's commits, and the time that the rows that are left will take.

    A row is committed after it has passed every stage, so the rate is that of the slowest stage. Rows are committed a
    batch at a time: rates are taken from commit to commit, and the time counts down between two of them. The first
    commit only starts the clock, since before it the collection is opened and the model is loaded.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._done: int | None = None
        self._last = 0.0
        self._commits = 0
        self._measured = 0.0
        self._recent_rows = self._recent_seconds = self._recent_commits = 0.0  # older ones count for less
        self._seconds: float | None = None
        self._updated = 0.0

    def update(self, done: int, total: int | None) -> None:
        """Record the number of committed rows and of all rows; call it often."""
        now = self._clock()
        if self._done is None or done < self._done:
            self._done = done
        elif done > self._done:
            if self._commits:
                self._measure(done - self._done, now - self._last)
            self._commits += 1
            self._done, self._last = done, now
        self._follow(now, total)

    @property
    def rate(self) -> float | None:
        """The rows per second; None until they are known."""
        if self._measured < KNOWN_SECONDS:
            return None
        # A commit that is late lowers the rate before it comes.
        late = max(0.0, self._clock() - self._last - self._usual_seconds)
        return self._recent_rows / (self._recent_seconds + late)

    @property
    def seconds(self) -> float | None:
        """The remaining seconds; None until they are known."""
        return self._seconds

    @property
    def _usual_seconds(self) -> float:
        return self._recent_seconds / self._recent_commits

    def _measure(self, rows: int, seconds: float) -> None:
        self._measured += seconds
        kept = math.exp(-seconds / max(MEMORY_SECONDS, MEMORY_SHARE * self._measured))
        self._recent_rows = self._recent_rows * kept + rows
        self._recent_seconds = self._recent_seconds * kept + seconds
        self._recent_commits = self._recent_commits * kept + 1

    def _follow(self, now: float, total: int | None) -> None:
        """Count the shown time down, and draw it towards the estimate."""
        rate, passed, self._updated = self.rate, now - self._updated, now
        if total is None or self._done is None or not rate:
            self._seconds = None
            return
        begun = min(now - self._last, self._usual_seconds)  # seconds of work at the next batch
        estimate = max(0.0, (total - self._done) / rate - begun)
        if self._seconds is None:
            self._seconds = estimate
            return
        counted = max(0.0, self._seconds - passed)
        pull = min(MAX_PULL, max(MIN_PULL, PULL_SHARE * estimate))
        self._seconds = counted + (estimate - counted) * (1.0 - math.exp(-passed / pull))


def as_clock(seconds: float) -> str:
    """Return a time as `0:35` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
