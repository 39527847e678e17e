"""A running task -> its course, kept with it while it runs, so that a report can draw how it went."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from upsert_cli.context import Progress
from upsert_cli.errors import JournalUnreadable, JournalUnwritable
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.task import Task
from upsert_cli.journal.timeline import Point, Timeline, read_timeline, write_timeline
from upsert_cli.load.observer import Observer

SAVE_SECONDS = 5.0  # seconds of a course that a crash may cost


class TimelineRecorder:
    """Hands on what a task tells its observer, and keeps the task's course meanwhile.

    The course is only for a chart: where it cannot be kept, that is said once, and the load goes on.
    """

    def __init__(self, observer: Observer, claim: Claim, task: Task) -> None:
        """Touches nothing before the task has come anywhere."""
        self._observer = observer
        self._claim = claim
        self._attempt = task.attempt
        self._began = time.monotonic()
        self._next_save = self._began + SAVE_SECONDS
        self._course: Timeline | None = None
        self._progress: Progress | None = None

    def __enter__(self) -> TimelineRecorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._progress is not None and self._course is not None:
            self._add(self._progress, self._course)
            self._save()

    def started(self, task: Task) -> None:
        """Hands it on."""
        self._observer.started(task)

    def progressed(self, progress: Progress) -> None:
        """Takes a point where one is due."""
        if self._progress is None:
            self._progress = progress
            self._course = self._at_start(progress)
        now = time.monotonic()
        course = self._course
        if course is not None and course.is_due(attempt=self._attempt, seconds=now - self._began):
            self._add(progress, course)
            if now >= self._next_save:
                self._next_save = now + SAVE_SECONDS
                self._save()
        self._observer.progressed(progress)

    def rejected(self, records: Sequence[dict[str, Any]]) -> None:
        """Hands it on."""
        self._observer.rejected(records)

    def told(self, message: str) -> None:
        """Hands it on."""
        self._observer.told(message)

    def noted(self, message: str) -> None:
        """Hands it on."""
        self._observer.noted(message)

    def killed(self) -> None:
        """Hands it on."""
        self._observer.killed()

    def _at_start(self, progress: Progress) -> Timeline | None:
        if not progress.settled:
            return Timeline()  # read from the start, whatever was before
        try:
            return read_timeline(self._claim.files.timeline)
        except JournalUnreadable as error:
            self._say_lost(error)
            return None

    def _add(self, progress: Progress, course: Timeline) -> None:
        self._course = course.with_point(
            Point(
                attempt=self._attempt,
                seconds=round(time.monotonic() - self._began, 3),
                read=progress.read,
                embedded=progress.embedding_passed,
                written=progress.settled,
                # A copy at once, since the stages' threads may add a name meanwhile.
                busy={name: round(seconds, 3) for name, seconds in progress.seconds.copy().items()},
            )
        )

    def _save(self) -> None:
        if self._course is not None:
            try:
                write_timeline(self._claim.files.timeline, self._course)
            except JournalUnwritable as error:
                self._say_lost(error)
                self._course = None

    def _say_lost(self, error: Exception) -> None:
        self._observer.noted(f"how the load goes is not kept, so a report of it will have no chart: {error}")
