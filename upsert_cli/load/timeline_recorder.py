"""The progress of a running task, recorded for the chart of its report."""

from __future__ import annotations

import time

from upsert_cli.context import Progress
from upsert_cli.errors import JournalUnreadable, JournalUnwritable
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.task import Task
from upsert_cli.journal.timeline import Point, Timeline, read_timeline, write_timeline

SAVE_SECONDS = 5.0  # seconds of a timeline that a crash may cost


class TimelineRecorder:
    """The timeline of one attempt; if it cannot be kept, the load continues without it."""

    def __init__(self, claim: Claim, task: Task) -> None:
        self._claim = claim
        self._attempt = task.attempt
        self._began = time.monotonic()
        self._next_save = self._began + SAVE_SECONDS
        self._timeline: Timeline | None = None
        self._is_begun = False

    def add(self, progress: Progress) -> str | None:
        """Record the progress if a point is due, and return a warning if the timeline cannot be kept from now on."""
        if not self._is_begun:
            self._is_begun = True
            try:
                # Without committed rows the sources are read from their start, whatever was before.
                self._timeline = read_timeline(self._claim.files.timeline) if progress.committed else Timeline()
            except JournalUnreadable as error:
                return _lost(error)
        now = time.monotonic()
        if self._timeline is None or not self._timeline.is_due(attempt=self._attempt, seconds=now - self._began):
            return None
        self._add(progress, self._timeline)
        if now < self._next_save:
            return None
        self._next_save = now + SAVE_SECONDS
        return self._save()

    def finish(self, progress: Progress) -> str | None:
        """Record the end of the attempt."""
        if self._timeline is None:
            return None
        self._add(progress, self._timeline)
        return self._save()

    def _add(self, progress: Progress, timeline: Timeline) -> None:
        self._timeline = timeline.with_point(
            Point(
                attempt=self._attempt,
                seconds=round(time.monotonic() - self._began, 3),
                read=progress.read,
                embedded=progress.embedding_passed,
                written=progress.committed,
                # A copy at once, since the threads of the stages may add a name.
                busy={name: round(seconds, 3) for name, seconds in progress.seconds.copy().items()},
            )
        )

    def _save(self) -> str | None:
        if self._timeline is None:
            return None
        try:
            write_timeline(self._claim.files.timeline, self._timeline)
        except JournalUnwritable as error:
            self._timeline = None
            return _lost(error)
        return None


def _lost(error: Exception) -> str:
    return f"the progress of the load is not kept, so a report of it will have no chart: {error}"
