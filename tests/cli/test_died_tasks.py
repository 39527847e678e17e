"""Tasks whose runner was killed: their state, their last update, and the command that continues them."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from tests.journal.conftest import die, start
from tests.support.items import Items
from tests.support.journal_tasks import MOMENT, make_checkpoint, make_task
from tests.support.terminal import Terminal
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.progress import read_checkpoint, write_checkpoint
from upsert_cli.journal.task import TaskStatus


@pytest.fixture
def died(terminal: Terminal) -> Terminal:
    """Return a terminal with a task that died after 30 rows, one whose worker died, and one that is done."""
    journal = Journal(terminal.journal)
    for name, queued in (("n", False), ("q", True)):
        journal.create(make_task(name, queued=queued))
        claim = start(journal, name)
        claim.save(make_checkpoint(30))
        die(claim)
    journal.create(make_task("ok", status=TaskStatus.DONE))
    return terminal


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("upsert-cli info n", 0),
        ("upsert-cli info n --exit-status", 1),
        ("upsert-cli info n --follow --exit-status", 1),
        ("upsert-cli list", 0),
        ("upsert-cli list --status processing", 0),
        ("upsert-cli report n --html -", 0),
    ],
)
def test_a_died_task_is_shown_with_the_command_that_continues_it(died: Terminal, line: str, code: int) -> None:
    """Every output for people says `died` and names the command."""
    done = died.type(line, expect=code)
    assert "died" in done.stdout
    assert "processing" not in done.stdout
    assert "upsert-cli restart n" in done.stdout + done.stderr


def test_json_keeps_the_state_of_a_died_task(died: Terminal) -> None:
    """In JSON the task is `processing` and not running, and its last update is its last checkpoint."""
    followed = json.loads(died.type("upsert-cli info n --follow --json").stdout.splitlines()[-1])
    listed = {task["id"]: task for task in json.loads(died.type("upsert-cli list --json").stdout)}
    for task in (died.info("n"), followed, listed["n"]):
        assert (task["status"], task["running"], task["progress"]["rows"]) == ("processing", False, 30)
        assert task["updated_at"] > MOMENT


def test_a_died_queued_task_is_left_to_the_next_worker(died: Terminal) -> None:
    """A restart would take it out of the queue, so the command is `work`."""
    assert "next\tto continue it: upsert-cli work" in died.type("upsert-cli info q").stdout


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        ("--status died", ["q", "n"]),
        ("--status died --status done", ["ok", "q", "n"]),
        ("--status done --status pending", ["ok"]),
        ("--status died --offset 1", ["n"]),
        ("--status failed", []),
    ],
)
def test_died_tasks_can_be_listed(died: Terminal, options: str, ids: list[str]) -> None:
    """`--status died` works like the other states, also together with them."""
    assert [task["id"] for task in json.loads(died.type(f"upsert-cli list --json {options}").stdout)] == ids


def test_a_running_task_is_not_listed_as_died(died: Terminal) -> None:
    """The record is the same, so the lease decides."""
    journal = Journal(died.journal)
    journal.create(make_task("live"))
    claim = start(journal, "live")
    listed = json.loads(died.type("upsert-cli list --json --status died").stdout)
    assert [task["id"] for task in listed] == ["q", "n"]
    assert "live\tprocessing" in died.type("upsert-cli list").stdout
    claim.release()


def test_many_died_tasks_are_counted(terminal: Terminal) -> None:
    """Of a thousand died tasks, the list names the commands for the newest, and how to list the others."""
    journal = Journal(terminal.journal)
    for number in range(7):
        journal.create(make_task(f"t{number}"))
        die(start(journal, f"t{number}"))
    said = terminal.type("upsert-cli list").stderr.splitlines()
    assert said[0] == "the runner of task t6 died; `upsert-cli restart t6` continues it"
    assert said[-1] == "2 more died; `upsert-cli list --status died` lists them"
    assert terminal.type("upsert-cli list -q").stderr == ""


def test_verify_advises_to_restart_a_killed_load(tiny: Terminal, make_items: Items) -> None:
    """The last checkpoint is the last update, during the load and after; `verify` advises a restart, not a repair."""
    tiny.write("a.jsonl", make_items(600))
    process = tiny.start("upsert-cli run a.jsonl --task-id t --batch-size 32")
    seen: list[dict[str, Any]] = []

    def moved() -> bool:
        seen.append(tiny.info("t"))
        return bool(seen[-1]["updated_at"] > seen[-1]["started_at"])

    tiny.halt_when(process, "t", moved)
    assert all(one["running"] for one in seen)
    moments = [datetime.fromisoformat(one["updated_at"]) for one in seen]
    assert moments == sorted(moments)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    killed = tiny.info("t")
    assert (killed["status"], killed["running"], killed["stopped_by"]) == ("processing", False, None)
    assert killed["updated_at"] >= seen[-1]["updated_at"] > killed["started_at"]
    verified = tiny.type("upsert-cli verify t", expect=3).stderr
    assert "warning: the runner of task t died, so rows may be missing; `upsert-cli restart t` continues it" in verified
    assert verified.splitlines()[-1] == "  to repair it: upsert-cli restart t"
    assert "died" in tiny.type("upsert-cli collections").stdout
    tiny.type("upsert-cli restart t")
    tiny.type("upsert-cli verify t")


def test_a_checkpoint_without_a_time_is_read(died: Terminal) -> None:
    """Older versions wrote no time; the time of the record is used then."""
    path = died.journal / "active" / "n.progress"
    checkpoint = read_checkpoint(path)
    assert checkpoint is not None
    write_checkpoint(path, replace(checkpoint, saved_at=None))
    assert died.info("n")["progress"]["rows"] == 30
