"""Bad numbers and names are refused before a task exists."""

from __future__ import annotations

import json

import pytest

from tests.support.terminal import Terminal


@pytest.mark.parametrize(
    "line",
    [
        "run a.jsonl --retry-for nan",
        "run a.jsonl --if-running wait --wait-timeout nan",
        "list --watch nan",
        "list --watch inf",
        "work --watch nan",
        "cancel t --wait nan",
        "run a.jsonl --collection x",
        "run a.jsonl --collection ''",
        "run a.jsonl --collection a/b --dry-run --no-compare",
        "run a.jsonl --collection a..b- --enqueue",
    ],
)
def test_a_bad_value_is_a_usage_error(terminal: Terminal, line: str) -> None:
    """The exit code is 2, one line names the value or the option, and neither a task nor a folder is created."""
    terminal.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello"}}])
    done = terminal.type(f"upsert-cli {line}", expect=2)
    assert "Traceback" not in done.stderr
    assert any(words in done.stderr for words in ("nan", "inf", "the name of a collection"))
    assert json.loads(terminal.type("upsert-cli list --json").stdout) == []
    assert not (terminal.folder / "chroma").exists()


def test_a_page_that_cannot_be_written(tiny: Terminal) -> None:
    """The error of a full disk names the file."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello"}}])
    tiny.type("upsert-cli run a.jsonl --task-id t")
    done = tiny.type("upsert-cli report t --html /dev/full", expect=1)
    assert "/dev/full" in done.stderr
    assert "No space left on device" in done.stderr
