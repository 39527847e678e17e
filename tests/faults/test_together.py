"""Two runs that start at the same moment, as cron jobs do: one works, and `--if-running` decides about the other."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass

import pytest

from tests.support.terminal import Terminal

ROWS = 200
SECONDS = 120.0  # seconds after which a test gives up
FEW, MANY = 1, 20  # pairs; the larger number is run before a release
TIMES = [FEW, pytest.param(MANY, marks=pytest.mark.slow)]


@dataclass(frozen=True)
class Ended:
    """The end of one of the two runs."""

    code: int
    seconds: float
    errors: str


def _together(terminal: Terminal, *lines: str) -> list[Ended]:
    """Start commands at the same moment, and wait for their ends."""
    ended: list[Ended | None] = [None] * len(lines)
    began = time.monotonic()
    processes = [terminal.start(line, stdout=subprocess.DEVNULL) for line in lines]

    def watch(place: int, process: subprocess.Popen[str]) -> None:
        _, errors = process.communicate(timeout=SECONDS)
        ended[place] = Ended(process.returncode, time.monotonic() - began, errors)

    watchers = [threading.Thread(target=watch, args=each) for each in enumerate(processes)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join()
    return [each for each in ended if each is not None]


def _fresh(tiny: Terminal, number: int) -> Terminal:
    terminal = Terminal(tiny.folder / str(number), tiny.env)
    terminal.folder.mkdir()
    for name in ("a", "b"):
        terminal.write(
            f"{name}.jsonl",
            ({"object_id": f"{name}-{row}", "payload": {"text": f"text {row}"}} for row in range(ROWS)),
        )
    return terminal


def _line(name: str, *, same: bool, if_running: str) -> str:
    source, task = ("a", "t") if same else (name, name)
    return f"upsert-cli run {source}.jsonl --task-id {task} --batch-size 16 --if-running {if_running}"


def _assert_whole(terminal: Terminal, names: set[str]) -> None:
    """Check that the collection holds the rows of some sources, each with its vector, and nothing else."""
    assert set(terminal.records(vectors=True)) == {f"{name}-{row}" for name in names for row in range(ROWS)}


@pytest.mark.parametrize("times", TIMES)
def test_refuse(tiny: Terminal, times: int) -> None:
    """One works; the other exits with 4 long before the first ends, and names the first."""
    for number in range(times):
        terminal, same = _fresh(tiny, number), number % 2 == 1
        pair = _together(terminal, *(_line(name, same=same, if_running="refuse") for name in ("a", "b")))
        out, works = sorted(pair, key=lambda each: each.seconds)
        assert [out.code, works.code] == [4, 0], pair
        assert "pid" in out.errors
        print(f"refused after {out.seconds:.2f} s, {'same task' if same else 'same folder'}")
        assert terminal.statuses() == ({"t": "done"} if same else _one_of(pair, "refused"))
        _assert_whole(terminal, {"a" if same or pair[0].code == 0 else "b"})


@pytest.mark.parametrize("times", TIMES)
def test_skip(tiny: Terminal, times: int) -> None:
    """One works, the other is out with 0 long before that one ends, and leaves no task."""
    for number in range(times):
        terminal, same = _fresh(tiny, number), number % 2 == 1
        pair = _together(terminal, *(_line(name, same=same, if_running="skip") for name in ("a", "b")))
        out, _ = sorted(pair, key=lambda each: each.seconds)
        assert [each.code for each in pair] == [0, 0], pair
        assert "nothing was done" in out.errors
        print(f"skipped after {out.seconds:.2f} s, {'same task' if same else 'same folder'}")
        works = "a" if same or "nothing was done" in pair[1].errors else "b"
        assert terminal.statuses() == {"t" if same else works: "done"}
        assert not list((terminal.journal / "active").iterdir())
        _assert_whole(terminal, {works})


@pytest.mark.parametrize("times", TIMES)
def test_wait(tiny: Terminal, times: int) -> None:
    """Both exit with 0: the second works after the first, or finds the task done."""
    for number in range(times):
        terminal, same = _fresh(tiny, number), number % 2 == 1
        pair = _together(terminal, *(_line(name, same=same, if_running="wait") for name in ("a", "b")))
        assert [each.code for each in pair] == [0, 0], pair
        assert terminal.statuses() == ({"t": "done"} if same else {"a": "done", "b": "done"})
        _assert_whole(terminal, {"a"} if same else {"a", "b"})


def _one_of(pair: list[Ended], status: str) -> dict[str, str]:
    return {name: status if ended.code else "done" for name, ended in zip(("a", "b"), pair, strict=True)}
