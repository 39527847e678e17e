"""Kills and signals at random instants: after `restart` the collection equals that of an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.records import Records, assert_same
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until

ITEMS = 240
LINE = "upsert-cli run a.jsonl --task-id t --batch-size 16"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

# How many kills; the larger number is run before a release.
FEW_KILLS, MANY_KILLS = 20, 500
FEW_SIGNALS, MANY_SIGNALS = 10, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Undisturbed:
    """An uninterrupted load."""

    records: Records
    """Its collection: document, metadata and vector by id."""

    seconds: float
    """How long it takes; kills are spread over this time."""


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    """Return items of mixed length, some ids repeated, a few rows bad."""
    made: list[dict[str, Any]] = [
        {
            "object_id": f"obj-{number % (ITEMS - 20):05d}",
            "payload": {"text": f"text {number} " + "and more of it " * (number % 23), "number": number},
        }
        for number in range(ITEMS)
    ]
    for number in range(37, ITEMS, 97):
        made[number] = {"object_id": f"bad-{number}", "payload": {"text": ""}}
    return made


@pytest.fixture(scope="module")
def undisturbed(items: list[dict[str, Any]], tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Run a load to its end without an interruption."""
    terminal = Terminal(tmp_path_factory.mktemp("expected"), {"UPSERT_CLI_RUN_MODEL_PATH": str(tiny_model)})
    terminal.write("a.jsonl", items)
    began = time.monotonic()
    terminal.type(LINE, expect=3)
    return Undisturbed(seconds=time.monotonic() - began, records=terminal.records(vectors=True))


@pytest.mark.parametrize("kills", [FEW_KILLS, pytest.param(MANY_KILLS, marks=pytest.mark.slow)])
def test_kills_at_random_instants_lose_nothing(
    tiny: Terminal, items: list[dict[str, Any]], undisturbed: Undisturbed, kills: int
) -> None:
    """After kill -9 of the runner, its writer or both, restarts finish the load with nothing lost or doubled."""
    choose = random.Random(kills)
    done = 0
    loads = 0
    while done < kills:
        loads += 1
        terminal = Terminal(tiny.folder / str(loads), tiny.env)
        terminal.folder.mkdir()
        terminal.write("a.jsonl", items)
        line = LINE
        while done < kills:
            process = terminal.start(line)
            _kill_somebody(process, choose, undisturbed.seconds)
            done += 1
            if process.returncode in (0, 3):
                break
            line = "upsert-cli restart t" if _has_task(terminal) else LINE
        terminal.type(line, expect=3) if process.returncode not in (0, 3) else None
        _assert_done(terminal, undisturbed.records)


@pytest.mark.parametrize("count", [FEW_SIGNALS, pytest.param(MANY_SIGNALS, marks=pytest.mark.slow)])
def test_signals_at_random_instants_stop_at_a_checkpoint(
    tiny: Terminal, items: list[dict[str, Any]], undisturbed: Undisturbed, count: int
) -> None:
    """After SIGINT, SIGTERM or SIGHUP the process dies by that signal, the task can be restarted, and ends equal."""
    choose = random.Random(count)
    slowest = 0.0
    for number in range(count):
        terminal = Terminal(tiny.folder / str(number), tiny.env)
        terminal.folder.mkdir()
        terminal.write("a.jsonl", items)
        process = terminal.start(LINE)
        try:
            process.wait(choose.uniform(0, undisturbed.seconds))
        except subprocess.TimeoutExpired:
            chosen = choose.choice(list(CODES))
            sent = time.monotonic()
            os.kill(process.pid, chosen)
            process.wait(60)
            slowest = max(slowest, time.monotonic() - sent)
            assert process.returncode in (-chosen, 0, 3), process.communicate()
        process.communicate()
        if not _has_task(terminal):
            terminal.type(LINE, expect=3)
        elif terminal.info("t")["status"] != "done":
            assert terminal.info("t")["running"] is False
            terminal.type("upsert-cli restart t", expect=3)
        _assert_done(terminal, undisturbed.records)
    print(f"slowest stop: {slowest:.2f} s")


def test_a_second_signal_ends_it_at_once(tiny: Terminal, items: list[dict[str, Any]], undisturbed: Undisturbed) -> None:
    """A second Ctrl-C does not wait for anything; the journal is whole and the task can be taken over."""
    tiny.write("a.jsonl", items)
    process = tiny.start(LINE)
    wait_until(lambda: _has_task(tiny) and tiny.info("t")["progress"]["rows"] > 0)
    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGINT)
    sent = time.monotonic()
    process.wait(30)
    print(f"gone {time.monotonic() - sent:.2f} s after the second signal")
    assert process.returncode == -signal.SIGINT
    assert tiny.info("t")["running"] is False
    tiny.type("upsert-cli restart t", expect=3)
    _assert_done(tiny, undisturbed.records)


def _kill_somebody(process: subprocess.Popen[str], choose: random.Random, seconds: float) -> None:
    """Kill the whole group, the runner or its writer with -9 after a while, and wait for the end of all."""
    try:
        process.wait(choose.uniform(0, seconds))
    except subprocess.TimeoutExpired:
        whom = choose.choice(["group", "runner", "writer"])
        children = _children(process.pid)
        if whom == "group":
            os.killpg(process.pid, signal.SIGKILL)
        elif whom == "runner" or not children:
            process.kill()
        else:
            _kill(int(choose.choice(children)))
    process.communicate(timeout=120)


def _children(pid: int) -> list[str]:
    """Return the ids of the child processes; none of a process that has just ended."""
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # it has just ended


def _has_task(terminal: Terminal) -> bool:
    return terminal.type("upsert-cli info t --json", expect=None).returncode == 0


def _assert_done(terminal: Terminal, expected: Records) -> None:
    task = terminal.info("t")
    counts = task["counts"]
    assert task["status"] == "done"
    assert counts["read"] == ITEMS
    counted = counts["inserted"] + counts["updated"] + counts["unchanged"] + counts["duplicate"] + counts["failed"]
    assert counted == ITEMS
    rejects = terminal.type("upsert-cli info t --failed").stdout.splitlines()
    assert [json.loads(line)["row"] for line in rejects] == list(range(38, ITEMS + 1, 97))
    assert_same(terminal.records(vectors=True), expected)
