"""Kills at random instants of a rename that replaces: two whole collections are left, and the same command completes it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.support.terminal import Terminal

RENAME = "upsert-cli collections rename new old --replace"
FEW_KILLS, MANY_KILLS = 4, 100


@pytest.mark.parametrize("kills", [FEW_KILLS, pytest.param(MANY_KILLS, marks=pytest.mark.slow)])
def test_kills_at_random_instants_leave_both_collections(tiny: Terminal, kills: int) -> None:
    """Whenever the group is killed, nothing of either collection is lost, and the next call ends well."""
    choose = random.Random(kills)
    contents = {name: _load(tiny, name, count) for name, count in {"old": 3, "new": 5}.items()}
    began = time.monotonic()
    tiny.type(RENAME)
    seconds = time.monotonic() - began
    for _ in range(kills):
        aside = next(name for name in _collections(tiny) if ".before-" in name)
        tiny.type("upsert-cli collections rename old new")
        tiny.type(f"upsert-cli collections rename {aside} old")
        process = tiny.start(RENAME)
        try:
            process.wait(choose.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=120)
        left = _collections(tiny)
        assert sorted(left.values()) == [3, 5]
        if "new" in left:
            tiny.type(RENAME)
        [kept] = set(_collections(tiny)) - {"old"}
        assert tiny.records("old", vectors=True) == contents["new"]
        assert tiny.records(kept, vectors=True) == contents["old"]


def _load(terminal: Terminal, name: str, count: int) -> dict[str, Any]:
    vectors = [[1.0] * 383 + [number] for number in range(count)]  # so that no model has to be loaded
    items = [
        {"object_id": str(number), "payload": {"text": f"{name} {number}", "vector": vector}}
        for number, vector in enumerate(vectors)
    ]
    terminal.write("a.jsonl", items)
    terminal.type(f"upsert-cli run a.jsonl --collection {name}")
    return terminal.records(name, vectors=True)


def _collections(terminal: Terminal) -> dict[str, int]:
    listed = terminal.type("upsert-cli collections").stdout.splitlines()[1:]
    return {name: int(records) for name, records, *_ in (line.split("\t") for line in listed)}
