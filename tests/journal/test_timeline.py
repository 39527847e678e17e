"""The timeline of a task is bounded, kept over restarts, and never makes a load fail."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.journal.conftest import start
from tests.support.journal_tasks import make_task
from upsert_cli.context import Progress
from upsert_cli.counts import Counts
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.progress import MAX_POINTS, Point, Timeline, TimelineRecorder, read_timeline, write_timeline


def _point(attempt: int, seconds: float, rows: int) -> Point:
    return Point(
        attempt=attempt, seconds=seconds, read=rows, embedded=rows, written=rows, busy={"reading": seconds / 2}
    )


@given(st.lists(st.lists(st.floats(0.001, 30), min_size=1, max_size=300), min_size=1, max_size=4))
def test_a_timeline_is_bounded_and_keeps_its_order_and_its_end(attempts: list[list[float]]) -> None:
    """A timeline has few points, in order, including the last one, however long a load and however often it is restarted."""
    course, rows = Timeline(), 0
    for attempt, pauses in enumerate(attempts, 1):
        seconds = 0.0
        for pause in pauses:
            seconds, rows = seconds + pause, rows + 1
            course.add(_point(attempt, seconds, rows))
        course.add(_point(attempt, seconds, rows), is_last=True)
    order = [(point.attempt, point.seconds) for point in course.points]
    assert order == sorted(order)
    assert len(order) <= MAX_POINTS
    assert order[-1] == (len(attempts), seconds)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "courses" / "t.json"
        write_timeline(path, course)
        assert read_timeline(path) == course


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b"{}", b'{"spacing": 1, "points": [{}]}', b"[" * 100_000])
def test_a_torn_timeline_reads_as_empty(tmp_path: Path, content: bytes) -> None:
    """The file is not forced to the disk, so a power failure may leave anything in it; that costs only the chart."""
    path = tmp_path / "courses" / "t.json"
    write_timeline(path, Timeline(points=[_point(1, 1.0, 10)]))
    assert len(read_timeline(path).points) == 1
    path.write_bytes(content)
    assert read_timeline(path) == Timeline()


def _attempt(journal: Journal, *, attempt: int, begins_at: int, ends_at: int) -> list[str]:
    """Record one attempt, and return the warnings."""
    with Claim.take(journal, "t") as claim:
        recorder = TimelineRecorder(claim.files.timeline, attempt)
        progress = Progress(total=100)
        progress.continue_after(begins_at, Counts())
        warnings = []
        for rows in range(begins_at, ends_at + 1, 10):
            progress.committed = rows
            warnings.append(recorder.add(progress))
        time.sleep(0.002)
        progress.add("flushing", 0.001)
        warnings.append(recorder.add(progress, is_last=True))
    return [warning for warning in warnings if warning is not None]


def test_a_restart_continues_the_timeline_and_a_new_start_begins_another(tmp_path: Path) -> None:
    """The points of earlier attempts stay until the sources are read from the start again."""
    journal = Journal(tmp_path)
    journal.create(make_task())
    assert _attempt(journal, attempt=1, begins_at=0, ends_at=50) == []
    assert _attempt(journal, attempt=2, begins_at=50, ends_at=100) == []
    points = read_timeline(journal.files("t").timeline).points
    assert [(point.attempt, point.written) for point in points] == [(1, 0), (1, 50), (2, 50), (2, 100)]
    assert points[-1].busy == {"flushing": 0.001}
    _attempt(journal, attempt=3, begins_at=0, ends_at=30)
    assert {point.attempt for point in read_timeline(journal.files("t").timeline).points} == {3}


def test_an_unwritable_timeline_is_reported_once_and_ends_nothing(tmp_path: Path) -> None:
    """If its folder cannot be written, the load warns once and continues without a timeline."""
    journal = Journal(tmp_path)
    journal.create(make_task())
    (tmp_path / "courses").rmdir()
    (tmp_path / "courses").write_text("in the way")
    (note,) = _attempt(journal, attempt=1, begins_at=0, ends_at=50)
    assert str(tmp_path / "courses") in note


def test_a_withdrawn_task_leaves_no_timeline(tmp_path: Path) -> None:
    """`withdraw` removes the timeline with all other files of the task."""
    journal = Journal(tmp_path)
    journal.create(make_task())
    with start(journal) as claim:
        write_timeline(claim.files.timeline, Timeline(points=[_point(1, 1.0, 10)]))
        claim.withdraw()
    assert list((tmp_path / "courses").iterdir()) == []
