"""Another program works in the Chroma folder during a load: the exit code is right, and the collection stays whole."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.forked import start_python
from tests.support.records import Records, assert_same
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

ROWS = 300
LINE = "upsert-cli run a.jsonl --task-id t --batch-size 16"

# A plain client without a lease: opens the folder, prints `ready`, and works until a line ends it.
FOREIGN = """
import os, select, sys, time
import chromadb
client = chromadb.PersistentClient(sys.argv[1])
collection = client.get_or_create_collection(sys.argv[2], embedding_function=None)
vector = [0.5] * 384
written = failed = 0
def write():
    global written, failed
    ids = [f"foreign-{written + number}" for number in range(8)]
    try:
        collection.upsert(ids=ids, embeddings=[vector] * 8, metadatas=[{"foreign": True}] * 8)
        written += 8
    except Exception:
        failed += 1
def read():
    collection.count()
    collection.query(query_embeddings=[vector], n_results=3)
def idle():
    pass
if sys.argv[3] == "idle":
    write()
work = {"write": write, "read": read, "idle": idle}[sys.argv[3]]
print("ready", flush=True)
sys.stdin.readline()
while not select.select([sys.stdin], [], [], 0.05)[0]:
    work()
if sys.argv[3] == "idle":
    write()
print(written, failed, flush=True)
"""


@contextmanager
def foreign(
    terminal: Terminal, collection: str, what: str, *, begin: Callable[[], object] = lambda: None
) -> Iterator[list[int]]:
    """Run a foreign program at the same time; afterwards the list holds its written rows and its failures.

    Args:
        terminal: Whose folder it opens.
        collection: Opened, or made.
        what: `write`, `read` or `idle`, which is a write at its beginning and one at its end.
        begin: Called when it has opened the collection, and before it goes on.
    """
    process = start_python(
        [sys.executable, "-c", FOREIGN, str(terminal.folder / "chroma"), collection, what],
        folder=terminal.folder,
        environment=terminal.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    told: list[int] = []
    try:
        begin()
        process.stdin.write("\n")
        process.stdin.flush()
        yield told
        output, _ = process.communicate("\n", timeout=120)
        told.extend(map(int, output.split()))
    finally:
        process.kill()


def _items(mark: str) -> list[dict[str, Any]]:
    return [
        {"object_id": f"obj-{number:05d}", "payload": {"text": f"{mark} {number} " + "and more of it " * (number % 7)}}
        for number in range(ROWS)
    ]


@pytest.fixture(scope="module")
def expected(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Return the collection after an undisturbed load."""
    terminal = Terminal(tmp_path_factory.mktemp("expected"), {"UPSERT_CLI_RUN_MODEL_PATH": str(tiny_model)})
    terminal.write("a.jsonl", _items("second"))
    terminal.type(LINE)
    return terminal.records(vectors=True)


@pytest.fixture
def loaded(tiny: Terminal, tiny_model: Path) -> Terminal:
    """Return a terminal with a finished load, and a source for another load that replaces every text."""
    tiny.env["UPSERT_CLI_VERIFY_MODEL_PATH"] = str(tiny_model)
    tiny.write("a.jsonl", _items("first"))
    tiny.type("upsert-cli run a.jsonl --task-id first")
    tiny.write("a.jsonl", _items("second"))
    return tiny


def _start_and_wait(terminal: Terminal, started: list[subprocess.Popen[str]]) -> None:
    """Start the load, and wait for its first checkpoint."""
    started.append(terminal.start(LINE))
    wait_until(lambda: terminal.has_checkpoint("t"))


def _finish(terminal: Terminal, code: int, errors: str) -> None:
    """Check that an exit code is right; after an error, follow the remedy in its message."""
    assert "Traceback" not in errors
    if code == 0:
        assert terminal.info("t")["status"] == "done"
        return
    assert code in (1, 4)
    assert terminal.info("t")["status"] in ("failed", "refused")
    if "verify --repair" in errors:
        terminal.type("upsert-cli verify --repair", expect=None)  # 3 where others wrote rows of their own
    terminal.type("upsert-cli restart t")


def _assert_whole(terminal: Terminal, expected: Records, *, others: int = 0) -> None:
    if not others:
        _assert_verified(terminal)
    found = terminal.records(vectors=True)
    assert len(found) == ROWS + others
    assert_same({one: found[one] for one in expected}, expected)


def _assert_verified(terminal: Terminal) -> None:
    """Check that every record is correct and can be found, after a repair if necessary.

    Chroma's index, left to itself too, drops about one in 700 records when all of these texts are replaced, whose
    vectors are close to each other: no query comes to such a record. `verify` says so, and a repair brings it back.
    """
    outcome = json.loads(terminal.type("upsert-cli verify t --json", expect=None).stdout)
    assert {kind: outcome[kind]["count"] for kind in ("missing", "unreadable", "different")} == {
        "missing": 0,
        "unreadable": 0,
        "different": 0,
    }
    assert outcome["unreachable"]["count"] <= ROWS // 50
    if not outcome["ok"]:
        assert json.loads(terminal.type("upsert-cli verify t --repair --json").stdout)["ok"]


@pytest.mark.parametrize(
    ("collection", "what"),
    [
        ("default", "idle"),
        ("other", "write"),
        pytest.param("default", "read", marks=pytest.mark.slow),
        pytest.param("default", "write", marks=pytest.mark.slow),
        pytest.param("other", "idle", marks=pytest.mark.slow),
    ],
)
def test_a_folder_that_another_program_has_open_is_refused(
    loaded: Terminal, expected: Records, collection: str, what: str
) -> None:
    """A program with any open collection, even idle, is named with its pid; after its end the load works."""
    with foreign(loaded, collection, what) as told:
        refused = loaded.type(LINE, expect=4).stderr
        assert loaded.info("t")["status"] == "refused"
        again = loaded.type("upsert-cli restart t", expect=4).stderr
    for errors in (refused, again):
        assert re.search(r"pid \d+ \(python", errors)
        assert "--chroma http://" in errors or (what == "write" and "is writing to" in errors)
    loaded.type("upsert-cli restart t")
    _assert_whole(loaded, expected, others=told[0] if collection == "default" else 0)
    if collection == "other":
        assert len(loaded.records("other")) == told[0]


@pytest.mark.parametrize("way", ["another path", "a link to the folder", "a link to the database"])
def test_an_open_folder_is_known_by_its_files(loaded: Terminal, way: str) -> None:
    """An open file is found by whatever path the program opened it."""
    other = loaded.folder / "elsewhere"
    if way == "another path":
        (loaded.folder / "sub").mkdir()
        other = loaded.folder / "sub" / ".." / "chroma"
    elif way == "a link to the folder":
        other.symlink_to(loaded.folder / "chroma")
    else:
        database = loaded.folder / "chroma" / "chroma.sqlite3"
        database.rename(loaded.folder / "real.db")
        database.symlink_to(loaded.folder / "real.db")
        other = loaded.folder / "chroma"
    with subprocess.Popen(["sleep", "60"], stdin=(other / "chroma.sqlite3").open("rb")) as holder:
        errors = loaded.type(LINE, expect=4).stderr
        holder.kill()
    assert f"pid {holder.pid} (sleep)" in errors


def test_reading_works_next_to_an_idle_program(loaded: Terminal) -> None:
    """A program that has the folder open keeps no command away that only reads."""
    loaded.write("a.jsonl", _items("first"))
    loaded.env["UPSERT_CLI_QUERY_MODEL_PATH"] = loaded.env["UPSERT_CLI_RUN_MODEL_PATH"]
    with foreign(loaded, "other", "idle"):
        loaded.type("upsert-cli verify first")
        loaded.type("upsert-cli query hello")
        loaded.type("upsert-cli collections")
        assert f"{ROWS} unchanged" in loaded.type("upsert-cli run a.jsonl --dry-run").stderr


@pytest.mark.slow
@pytest.mark.parametrize("what", ["write", "read"])
def test_a_program_that_opens_the_folder_midway(loaded: Terminal, expected: Records, what: str) -> None:
    """A program opens the same collection during a load, and writes its own rows or only reads."""
    started: list[subprocess.Popen[str]] = []
    start = functools.partial(_start_and_wait, loaded, started)
    with foreign(loaded, "default", what, begin=start) as told:
        _, errors = started[0].communicate(timeout=120)
    code = started[0].returncode
    _finish(loaded, code, errors)
    if what == "read":
        _assert_whole(loaded, expected)
        return
    assert told[0] > 0
    looked = json.loads(loaded.type("upsert-cli verify t --json", expect=3).stdout)
    print(f"exit {code}, {told[0]} foreign rows, {told[1]} of their writes failed")
    # Foreign records without a document are named, and a repair that cannot embed them leaves them alone.
    assert (looked["missing"]["count"], looked["different"]["count"]) == (0, told[0])
    loaded.type("upsert-cli verify t --repair", expect=3)
    _assert_whole(loaded, expected, others=told[0])


@pytest.mark.slow
def test_a_lock_that_is_held_is_an_error_at_once(loaded: Terminal, expected: Records) -> None:
    """A program that keeps the database locked, at the start or from the middle on: an error in time, never a hang."""
    lock = (
        "import sqlite3, sys\nconnection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)\n"
        "connection.execute('BEGIN IMMEDIATE')\nprint('ready', flush=True)\nsys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", lock, str(loaded.folder / "chroma" / "chroma.sqlite3")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline()
    began, used = time.monotonic(), os.times()
    errors = loaded.type(LINE, expect=4).stderr
    after = os.times()
    spent = after.children_user + after.children_system - used.children_user - used.children_system
    print(f"refused after {time.monotonic() - began:.2f} s, {spent:.2f} s of CPU")
    assert "another program is writing" in errors
    assert len(errors.splitlines()) <= 4
    holder.kill()
    holder.communicate()
    loaded.type("upsert-cli verify first", expect=4)  # since the source is another one by now
    loaded.type("upsert-cli restart t")
    _assert_whole(loaded, expected)
