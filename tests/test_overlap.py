"""Two commands for one Chroma folder: one works; the other is refused, waits or skips, and names the holder."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.items import Items
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until
from upsert_cli.leases import Holder, Lease
from upsert_cli.store.folder import LEASE_NAME

LOAD = "upsert-cli run a.jsonl --task-id first --batch-size 16"
SECONDS = 60.0  # seconds after which a test gives up; nothing here takes more than a few


class Busy(NamedTuple):
    """A terminal next to a load that has the folder."""

    terminal: Terminal
    load: subprocess.Popen[str]


@pytest.fixture
def busy(tiny: Terminal, make_items: Items) -> Iterator[Busy]:
    """Yield a terminal next to a load that is halted in its middle and then ends well."""
    tiny.write("a.jsonl", make_items(200))
    tiny.write("b.jsonl", make_items(10, mark="other"))
    process = tiny.start(LOAD)
    tiny.halt_when(process, "first")
    yield Busy(tiny, process)
    if process.poll() is None:
        tiny.go_on(process)
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert tiny.info("first")["counts"]["read"] == 200
    assert len(tiny.records()) == 200


@contextmanager
def _held(terminal: Terminal, task_id: str | None = "other") -> Iterator[None]:
    """Hold the folder's lease, as a load does."""
    folder = terminal.folder / "chroma"
    folder.mkdir(exist_ok=True)
    with Lease.take(folder / LEASE_NAME, Holder.this_process(task_id)):
        yield


def test_refuse_says_who_has_the_folder(busy: Busy) -> None:
    """The message names the task, the process, the host and since when; nothing is written."""
    errors = busy.terminal.type("upsert-cli run b.jsonl --task-id second", expect=4).stderr
    assert re.search(rf"pid \d+ on {re.escape(socket.gethostname())} \(task first\) since 20\d\d-", errors)
    assert busy.terminal.statuses()["second"] == "refused"


def test_skip_makes_no_task(busy: Busy) -> None:
    """A skipped load exits with 0, gives the reason, and leaves nothing in the journal."""
    assert "task first" in busy.terminal.type("upsert-cli run b.jsonl --if-running skip").stderr
    assert busy.terminal.type("upsert-cli run b.jsonl --if-running skip -q").stderr == ""
    done = busy.terminal.type("upsert-cli run b.jsonl --task-id second --if-running skip --json")
    (summary,) = map(json.loads, done.stdout.splitlines())
    assert (summary["type"], summary["exit_code"], summary["id"]) == ("summary", 0, None)
    assert "in use" in summary["detail"]
    assert set(busy.terminal.statuses()) == {"first"}


def test_skip_shows_a_running_task_as_running(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is skipped because another process runs it is shown as running, without a command to continue it."""
    page = busy.terminal.folder / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    done = busy.terminal.type(f"{LOAD} --if-running skip --json")
    (summary,) = map(json.loads, done.stdout.splitlines())
    assert (summary["status"], summary["running"], summary["exit_code"]) == ("processing", True, 0)
    assert "upsert-cli info first --follow" in page.read_text()
    assert "to continue" not in page.read_text().lower()


def test_a_refused_load_loads_no_model(tiny: Terminal, make_items: Items) -> None:
    """A refused load ends at once: the model is loaded only once the folder is free."""
    tiny.write("a.jsonl", make_items(3))
    with _held(tiny):
        tiny.type("upsert-cli run a.jsonl --task-id t", expect=4)
    assert "loading" not in tiny.info("t")["seconds"]


def test_wait_comes_after(busy: Busy) -> None:
    """A waiting load names the holder, and works when the holder has ended; both are whole."""
    terminal = busy.terminal
    line = "upsert-cli categories run b.jsonl --task-id second --if-running wait --wait-timeout 60"
    waiting = terminal.start(line)
    assert waiting.stderr is not None
    assert any("waiting for" in said and "task first" in said for said in iter(waiting.stderr.readline, ""))
    terminal.go_on(busy.load)
    waiting.communicate(timeout=SECONDS)
    assert waiting.returncode == 0
    first, second = terminal.info("first"), terminal.info("second")
    assert second["started_at"] <= first["finished_at"] <= second["finished_at"]
    assert len(terminal.records("categories")) == 10


def test_wait_ends_at_its_timeout(tiny: Terminal, make_items: Items) -> None:
    """A folder or task that is not free in time is a refusal; once it is free, the same command does the work."""
    tiny.write("a.jsonl", make_items(5))
    line = "upsert-cli run a.jsonl --task-id t --if-running wait --wait-timeout 0.5"
    with _held(tiny):
        assert "task other" in tiny.type(line, expect=4).stderr
        refused = tiny.type("upsert-cli restart t", expect=4).stderr
        assert "waiting" not in refused  # since it is another task that has the folder
        with Lease.take(tiny.journal / "active" / "t.lease", Holder.this_process("t")):
            assert "being run" in tiny.type(line, expect=4).stderr
    tiny.type(line)
    assert len(tiny.records()) == 5


def test_a_done_task_stays_done_where_it_cannot_be_restarted(tiny: Terminal, make_items: Items) -> None:
    """A folder that another load or another program has refuses the restart, and leaves the task and its rejects alone."""
    tiny.write("a.jsonl", [*make_items(5), {"object_id": "bad", "payload": {"text": ""}}])
    tiny.type("upsert-cli run a.jsonl --task-id t", expect=3)
    before, rejects = tiny.info("t"), tiny.type("upsert-cli info t --failed").stdout
    with _held(tiny):
        assert "task other" in tiny.type("upsert-cli restart t", expect=4).stderr
        assert "task other" in tiny.type("upsert-cli restart t --failed-only", expect=4).stderr
    with closing(sqlite3.connect(tiny.folder / "chroma" / "chroma.sqlite3", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert "another program" in tiny.type("upsert-cli restart t --from-start", expect=4).stderr
        connection.execute("ROLLBACK")
    assert tiny.info("t") == before
    assert tiny.type("upsert-cli info t --failed").stdout == rejects
    tiny.type("upsert-cli restart t", expect=3)
    assert (tiny.info("t")["status"], tiny.info("t")["attempt"]) == ("done", 2)


def test_a_task_waits_for_its_own_dead_runner(tiny: Terminal, make_items: Items) -> None:
    """The last write of a killed runner may still be in progress: a restart waits for it without an option."""
    tiny.write("a.jsonl", make_items(5))
    with _held(tiny):
        tiny.type("upsert-cli run a.jsonl --task-id t", expect=4)
    with _held(tiny, "t"):
        process = tiny.start("upsert-cli run a.jsonl --task-id t --if-running skip")
        tiny.wait_for_line(process, "waiting for")
    _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    assert tiny.info("t")["status"] == "done"


ORPHAN = """
import sys
from pathlib import Path
from upsert_cli.leases import Holder, Lease
with Lease.take(Path(sys.argv[1]), Holder.this_process("of-the-dead")):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def _held_by_an_orphan(terminal: Terminal) -> Iterator[Callable[[], None]]:
    """Hold the folder's lease by a process whose parent was killed; yield a function that ends it."""
    start = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    command = [sys.executable, "-c", start, ORPHAN, str(terminal.folder / "chroma" / LEASE_NAME)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        assert parent.stdout.readline() == "held\n"
        parent.kill()
        yield parent.stdin.close


@pytest.mark.parametrize(
    "line",
    [
        "upsert-cli verify",
        "upsert-cli verify t --repair",
        "upsert-cli restart t",
        "upsert-cli run a.jsonl",
        "upsert-cli run a.jsonl --if-running skip",
        "upsert-cli run a.jsonl --dry-run",
        "upsert-cli work --max-tasks 1",
    ],
)
def test_every_command_waits_for_the_writer_of_a_dead_one(tiny: Terminal, tiny_model: Path, line: str) -> None:
    """After a kill a write may still be running: each next command waits for its end, and works."""
    tiny.env["UPSERT_CLI_VERIFY_MODEL_PATH"] = str(tiny_model)
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello"}}])
    tiny.type("upsert-cli run a.jsonl --task-id t")
    tiny.type("upsert-cli run a.jsonl --task-id queued --enqueue")
    with _held_by_an_orphan(tiny) as release:
        process = tiny.start(line)
        assert process.stderr is not None
        assert any("waiting for" in said and "of-the-dead" in said for said in iter(process.stderr.readline, ""))
        release()
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_waiting(tiny: Terminal, make_items: Items, number: signal.Signals) -> None:
    """A load that waits for a folder without a limit dies by the first signal, and can be restarted."""
    tiny.write("a.jsonl", make_items(5))
    with _held(tiny):
        process = tiny.start("upsert-cli run a.jsonl --task-id t --if-running wait")
        wait_until(lambda: tiny.statuses().get("t") == "processing")
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == -number
        assert "restart t" in errors
    tiny.type("upsert-cli restart t")
    assert len(tiny.records()) == 5


def test_a_foreign_writer_is_an_error_and_no_hang(tiny: Terminal, make_items: Items) -> None:
    """A program that has a write transaction open in Chroma's database gets the load refused; afterwards it works."""
    tiny.write("a.jsonl", make_items(5))
    tiny.type("upsert-cli run a.jsonl")
    tiny.write("a.jsonl", make_items(6))
    with closing(sqlite3.connect(tiny.folder / "chroma" / "chroma.sqlite3", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        errors = tiny.type("upsert-cli run a.jsonl --task-id t --if-running wait --wait-timeout 1", expect=4).stderr
        connection.execute("ROLLBACK")
    assert "another program is writing" in errors
    assert tiny.info("t")["status"] == "refused"
    tiny.type("upsert-cli restart t")
    assert len(tiny.records()) == 6
