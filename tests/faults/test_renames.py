"""Kills at random instants of a rename that replaces: two whole collections are left, each with its unfinished task."""

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
    """Whenever the group is killed, nothing of either is lost, tasks continue in their own, and the next call ends well."""
    choose = random.Random(kills)
    contents = {name: _load(tiny, name, count) for name, count in {"old": 3, "new": 5}.items()}
    began = time.monotonic()
    tiny.type(RENAME)
    seconds = time.monotonic() - began
    for kill in range(kills):
        aside = next(name for name in _collections(tiny) if ".before-" in name)
        tiny.type("upsert-cli collections rename old new")
        tiny.type(f"upsert-cli collections rename {aside} old")
        process = tiny.start(RENAME)
        try:
            process.wait(choose.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=120)
        assert sorted(_collections(tiny).values()) == [3, 5]
        is_left = "new" in _collections(tiny)
        if kill % 2:  # a restart lets the tasks follow as well
            tiny.type("upsert-cli restart of-old --enqueue")
        if is_left or not kill % 2:
            tiny.type(RENAME, expect=0 if is_left else None)  # with 1, if it was killed after its end
        [kept] = set(_collections(tiny)) - {"old"}
        assert tiny.records("old", vectors=True) == contents["new"]
        assert tiny.records(kept, vectors=True) == contents["old"]
        assert [tiny.info(task_id)["collection"] for task_id in ("of-old", "of-new")] == [kept, "old"]
        assert not list(tiny.journal.glob("renames/*"))


def _load(terminal: Terminal, name: str, count: int) -> dict[str, Any]:
    vectors = [[1.0] * 383 + [number] for number in range(count)]  # so that no model has to be loaded
    items = [
        {"object_id": str(number), "payload": {"text": f"{name} {number}", "vector": vector}}
        for number, vector in enumerate(vectors)
    ]
    terminal.write("a.jsonl", items)
    terminal.type(f"upsert-cli run a.jsonl --collection {name}")
    # The first row is committed, and nothing is left to load but rejects.
    terminal.write(f"{name}.jsonl", [items[0], *({"object_id": str(bad), "payload": {}} for bad in range(100, 103))])
    limited = f"upsert-cli run {name}.jsonl --collection {name} --task-id of-{name} --batch-size 1 --max-failures 0"
    terminal.type(limited, expect=1)
    return terminal.records(name, vectors=True)


def _collections(terminal: Terminal) -> dict[str, int]:
    listed = terminal.type("upsert-cli collections").stdout.splitlines()[1:]
    return {name: int(records) for name, records, *_ in (line.split("\t") for line in listed)}
