"""Watching tasks that other processes run: `list --since`, `list --watch`, `info --follow`, and the attempts."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.journal.conftest import die, finish, start
from tests.support.journal_tasks import make_checkpoint, make_task, segment_at
from tests.support.terminal import Terminal, read_drawn
from tests.support.waiting import wait_until
from upsert_cli.journal.claims import Claim
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.segments import SEGMENT_TASKS
from upsert_cli.journal.task import TaskStatus

SECONDS = 60.0  # seconds after which a test gives up


def _ago(**age: float) -> str:
    return (datetime.now(UTC) - timedelta(**age)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _lines(process: subprocess.Popen[str]) -> Iterator[Any]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def test_since_an_age_or_a_date(terminal: Terminal) -> None:
    """`--since` takes an age or a date; a date without a zone is in local time."""
    journal = Journal(terminal.journal)
    journal.create(make_task("old", created_at="2026-01-01T00:30:00Z"))
    journal.create(make_task("today", created_at=_ago(hours=3)))
    journal.create(make_task("new", created_at=_ago(minutes=5)))

    def ids(since: str) -> list[str]:
        listed = terminal.type(f"upsert-cli list --json --since {since}").stdout
        return [task["id"] for task in json.loads(listed)]

    assert ids("2h") == ["new"]
    assert ids("1d --limit 1 --offset 1") == ["today"]
    assert ids("2026-01-01T00:30:00Z") == ["new", "today", "old"]
    assert ids("2026-01-01T02:30:01+02:00") == ["new", "today"]
    terminal.env["TZ"] = "Asia/Tokyo"  # nine hours ahead: its day began before
    assert ids("2026-01-01") == ["new", "today", "old"]
    terminal.env["TZ"] = "America/New_York"
    assert ids("2026-01-01") == ["new", "today"]
    assert "neither an age" in terminal.type("upsert-cli list --since yesterday", expect=2).stderr


def test_since_reads_no_more_than_it_has_to(tmp_path: Path) -> None:
    """A task that is slightly out of order is found; segments far behind the last match are not read."""
    journal = Journal(tmp_path)
    journal.create(make_task("first"))
    for number in range(1, 5):
        records = [make_task(f"t{number}-{place}").as_record() for place in range(SEGMENT_TASKS - 1)]
        segment_at(tmp_path, number).insert(*records)
    (tmp_path / "tasks-000002.json").write_bytes(b"damaged")  # would be named if it were read
    segment_at(tmp_path, 4).insert(make_task("one", created_at=_ago(hours=1)).as_record())
    segment_at(tmp_path, 4).update(make_task("t4-9", created_at=_ago(hours=1)).as_record())
    looking = Journal(tmp_path)
    assert [task.id for task in looking.list(since=_ago(hours=2))] == ["one", "t4-9"]
    assert looking.warnings == []


def test_a_list_that_is_watched_in_a_pipe(terminal: Terminal) -> None:
    """`list --watch --json` prints one array per line, shows new tasks, and dies by the signal sent."""
    journal = Journal(terminal.journal)
    journal.create(make_task("one"))
    process = terminal.start("upsert-cli list --watch 0.1 --json")
    lines = _lines(process)
    assert [task["id"] for task in next(lines)] == ["one"]
    journal.create(make_task("two"))
    assert ["two", "one"] in ([task["id"] for task in line] for line in lines)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGTERM
    assert errors.startswith("error: stopped by SIGTERM while it was watching")


def test_watching_on_a_terminal_replaces_the_frame(terminal: Terminal) -> None:
    """On a terminal a list is drawn over itself and a followed task has a bar; Ctrl-C restores the cursor."""
    journal = Journal(terminal.journal)
    journal.create(make_task("one", total=100))
    claim = start(journal, "one")
    claim.save(make_checkpoint(30))
    for line in ("upsert-cli list --watch 0.1", "upsert-cli info one --follow"):
        process, ours = terminal.start_drawn(line, columns=100)
        drawn = b""
        while b"30/100" not in drawn:
            drawn += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        drawn += read_drawn(ours)
        os.close(ours)
        assert process.wait(SECONDS) == -signal.SIGINT
        assert drawn.rfind(b"\x1b[?25h") > drawn.rfind(b"\x1b[?25l") >= 0
        assert b"Traceback" not in drawn
    claim.release()


def test_a_terminal_that_is_gone_does_not_change_the_end(terminal: Terminal) -> None:
    """A task whose bar can no longer be drawn is still followed to its end, and stdout has all about it."""
    journal = Journal(terminal.journal)
    journal.create(make_task("t", total=100))
    claim = start(journal)
    claim.save(make_checkpoint(30))
    terminal.env["TERM"] = "xterm-256color"
    ours, theirs = pty.openpty()
    process = terminal.start("upsert-cli info t --follow --exit-status", stderr=theirs)
    os.close(theirs)
    drawn = b""
    while b"30/100" not in drawn:
        drawn += os.read(ours, 65_536)
    os.close(ours)
    finish(claim, TaskStatus.DONE)
    claim.release()
    shown, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert "status\tdone" in shown


def test_a_task_is_followed_to_its_end(terminal: Terminal) -> None:
    """`info --follow --json` prints a line at each change until the end, and exits with the code of the task."""
    journal = Journal(terminal.journal)
    journal.create(make_task("t", total=100))
    process = terminal.start("upsert-cli info t --follow --json --exit-status")
    lines = _lines(process)
    assert next(lines)["status"] == "pending"
    claim = start(journal)
    assert next(lines)["running"] is True
    claim.save(make_checkpoint(30))
    assert next(lines)["progress"] == {"rows": 30, "total": 100}
    finish(claim, TaskStatus.FAILED, detail="no luck")
    claim.release()
    *_, last = lines
    assert (last["status"], last["detail"], last["running"]) == ("failed", "no luck", False)
    assert process.wait(SECONDS) == 1


def test_following_ends_with_a_dead_runner(terminal: Terminal) -> None:
    """If no worker will continue a task, following ends, and --exit-status reports a failure."""
    journal = Journal(terminal.journal)
    journal.create(make_task("t"))
    die(start(journal))
    shown = terminal.type("upsert-cli info t --follow --exit-status", expect=1)
    assert "status\tdied" in shown.stdout
    assert "next\tto continue it: upsert-cli restart t" in shown.stdout
    assert "warning: the runner of task t died; `upsert-cli restart t` continues it" in shown.stderr
    terminal.type("upsert-cli info t --follow --failed", expect=2)
    terminal.type("upsert-cli info none --follow", expect=1)


@pytest.mark.parametrize(
    ("end", "code", "told"),
    [
        (lambda claim: finish(claim, TaskStatus.DONE), 1, "error: task t came to its end before it could be canceled"),
        (die, 0, "task t is canceled"),
    ],
    ids=["done", "died"],
)
def test_cancel_waits_no_longer_than_the_task_is_run(
    terminal: Terminal, end: Callable[[Claim], object], code: int, told: str
) -> None:
    """A task that ends while `cancel` waits is reported at once, and one whose runner dies is canceled."""
    journal = Journal(terminal.journal)
    journal.create(make_task("t"))
    claim = start(journal)
    process = terminal.start("upsert-cli cancel t --wait 3600")
    wait_until(claim.cancel_requested)
    end(claim)
    assert process.wait(SECONDS) == code
    assert process.stderr is not None
    assert told in process.stderr.read()


def test_a_stopped_wait_says_nothing_about_a_load(terminal: Terminal) -> None:
    """`cancel` loads nothing, so its end by a signal is reported without a word on rows."""
    journal = Journal(terminal.journal)
    journal.create(make_task("t"))
    claim = start(journal)
    process = terminal.start("upsert-cli cancel t --wait 3600")
    wait_until(claim.cancel_requested)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=SECONDS)
    claim.release()
    assert process.returncode == -signal.SIGTERM
    assert errors == "error: stopped by SIGTERM\n"


def test_a_load_that_is_stopped_before_its_task_exists_says_so(terminal: Terminal) -> None:
    """Standard input is read to its end before the task is created."""
    process = terminal.start("upsert-cli run -", stdin=subprocess.PIPE)
    wait_until(lambda: any((terminal.journal / "spool").glob("*/*")))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == -signal.SIGTERM
    assert errors == "error: stopped by SIGTERM before anything was loaded\n"


def test_a_runner_that_dies_after_a_wait_is_reported(terminal: Terminal) -> None:
    """A task that waited at first, and was run then, is still reported when its runner dies."""
    journal = Journal(terminal.journal)
    journal.create(make_task("t"))
    process = terminal.start("upsert-cli info t --follow --json")
    lines = _lines(process)
    assert next(lines)["status"] == "pending"
    claim = start(journal)
    assert next(lines)["running"] is True
    die(claim)
    *_, last = lines
    assert (last["status"], last["running"]) == ("processing", False)
    assert process.stderr is not None
    assert process.stderr.read().count("warning: the runner of task t died") == 1


@pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.PROCESSING])
def test_each_attempt_is_shown(terminal: Terminal, status: TaskStatus) -> None:
    """A task that was run again shows each attempt with its start, its end, its counts and its seconds."""
    journal = Journal(terminal.journal)
    journal.create(make_task("t"))
    with Claim.take(journal, "t") as claim:
        journal.change("t", TaskStatus.PROCESSING, expect=(TaskStatus.PENDING,), started_at="2026-11-23T21:03:12Z")
        claim.save(make_checkpoint(30))
        if status.is_final:
            finish(claim, status, detail="no luck", seconds={"reading": 1.5, "total": 2.0})
    journal.change("t", TaskStatus.PENDING, expect=(status,), detail=None)
    with Claim.take(journal, "t") as claim:
        journal.change("t", TaskStatus.PROCESSING, expect=(TaskStatus.PENDING,), started_at="2026-11-23T22:00:00Z")
        finish(claim, TaskStatus.DONE, seconds={"total": 1.0})
    task = terminal.info("t")
    first, second = task["attempts"]
    assert (task["attempt"], first["attempt"], second["attempt"]) == (2, 1, 2)
    assert (first["status"], first["started_at"]) == (status.value, "2026-11-23T21:03:12Z")
    assert first["counts"]["read"] == 30
    assert (first["seconds"], first["detail"]) == (
        ({"reading": 1.5, "total": 2.0}, "no luck") if status.is_final else ({}, None)
    )
    assert (first["finished_at"] is None) == (status is TaskStatus.PROCESSING)
    assert (second["status"], second["started_at"], second["seconds"]) == ("done", "2026-11-23T22:00:00Z", {"total": 1})
    shown = terminal.type("upsert-cli info t").stdout
    assert f"attempt 1\t{status.value if status.is_final else 'died'}" in shown
    assert "attempt 2\tdone, 2026-11-23T22:00:00Z to " in shown
