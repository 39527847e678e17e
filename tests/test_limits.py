"""Limits of the system are named as the reason, with a remedy and without harmful advice."""

from __future__ import annotations

import errno
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.items import text_item
from tests.support.loading import a_target
from tests.support.terminal import Terminal
from upsert_cli.errors import JournalUnwritable
from upsert_cli.journal.journal import Journal
from upsert_cli.limits import limit_reached
from upsert_cli.store.chroma.faults import meaning

FILES = "is limited to {} open files"
MEMORY = "the memory of this process is limited to {} MiB"


def _type_limited(terminal: Terminal, limit: str, line: str) -> subprocess.CompletedProcess[str]:
    command = shlex.join(terminal.arguments(f"upsert-cli {line}"))
    return subprocess.run(
        ["bash", "-c", f"ulimit {limit}; {command}"],
        cwd=terminal.folder,
        env=terminal.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _with_an_item(folder: Path, tiny_model: Path) -> Terminal:
    terminal = Terminal(folder, {"UPSERT_CLI_RUN_MODEL_PATH": str(tiny_model)})
    terminal.write("a.jsonl", [text_item("a", "hello")])
    return terminal


@pytest.fixture(scope="module")
def queued(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Return a terminal with a pending task `t`, for commands that change nothing."""
    terminal = _with_an_item(tmp_path_factory.mktemp("queued"), tiny_model)
    terminal.type("upsert-cli run a.jsonl --task-id t --enqueue")
    return terminal


@pytest.fixture(scope="module")
def loaded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Return a terminal with a loaded item, for commands that change nothing."""
    terminal = _with_an_item(tmp_path_factory.mktemp("loaded"), tiny_model)
    terminal.type("upsert-cli run a.jsonl -q")
    return terminal


@pytest.mark.parametrize(
    ("limit", "named"),
    [
        ("-n 8", FILES.format(8)),
        ("-n 14", FILES.format(14)),
        ("-n 40", FILES.format(40)),
        ("-v 300000", MEMORY.format(292)),
        ("-v 600000", MEMORY.format(585)),
        ("-d 400000", MEMORY.format(390)),
    ],
)
@pytest.mark.parametrize("line", ["run a.jsonl", "run a.jsonl --dry-run", "restart t", "work", "verify", "query hello"])
def test_a_limit_is_named(queued: Terminal, limit: str, named: str, line: str) -> None:
    """Exit code 1, one line with the limit and how to raise it, and no task that failed for it."""
    before = Journal(queued.journal).list()
    done = _type_limited(queued, limit, line)
    assert done.returncode == 1
    (error,) = done.stderr.splitlines()
    assert named in error
    assert "`ulimit " in error
    assert "remove" not in error
    assert Journal(queued.journal).list() == before


def test_a_limit_of_the_size_of_files_is_named(tiny: Terminal) -> None:
    """A database that may not grow any further is no fault of the disk; a load without the limit succeeds."""
    tiny.write("a.jsonl", [text_item("a", "hello")])
    done = _type_limited(tiny, "-f 100", "run a.jsonl --task-id t")
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert "the files that this process writes are limited to 102,400 bytes; raise the limit (`ulimit -f" in error
    tiny.type("upsert-cli restart t")
    assert [*tiny.records()] == ["a"]


def test_events_of_a_limited_load_end_with_a_summary(tiny: Terminal) -> None:
    """With --json the limit is in the events as well."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello"}}])
    events = [json.loads(line) for line in _type_limited(tiny, "-n 10", "run a.jsonl --json").stdout.splitlines()]
    assert [event["type"] for event in events] == ["error", "summary"]
    assert all(FILES.format(10) in (event.get("message") or event["detail"]) for event in events)


def test_a_soft_limit_is_raised(tiny: Terminal) -> None:
    """Where only the soft limit of open files is low, a load needs no help."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "hello"}}])
    assert _type_limited(tiny, "-Sn 16", "run a.jsonl -q").returncode == 0


def test_light_commands_need_few_files(terminal: Terminal) -> None:
    """To look at tasks a tight limit is enough."""
    assert _type_limited(terminal, "-n 8", "list").returncode == 0


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
@pytest.mark.parametrize("day", ["1969-12-30", "1901-12-14"])
@pytest.mark.parametrize(
    "line", ["run a.jsonl", "run a.jsonl --dry-run", "run a.jsonl --chroma new", "verify", "query hello"]
)
def test_a_clock_before_1970_is_no_damage(loaded: Terminal, day: str, line: str) -> None:
    """Exit code 1 and one line about the clock; once it is right, the collection can be read."""
    done = loaded.type(f"faketime {day} {shlex.join(loaded.arguments(f'upsert-cli {line}'))}", expect=1)
    (error,) = done.stderr.splitlines()
    assert "the clock of this machine is before 1970" in error
    assert "damaged" not in error
    assert not (loaded.folder / "new").exists()
    loaded.type("upsert-cli verify -q")


def test_a_clock_that_goes_wrong_midway_is_no_damage() -> None:
    """The engine's own words for it name the clock too."""
    error = RuntimeError("Do not deploy before UNIX epoch: SystemTimeError(1s)")
    target = a_target(Path("/c"))
    assert "the clock of this machine is before 1970" in str(meaning(error, target))


@pytest.mark.parametrize(
    ("error", "by_words", "named"),
    [
        (OSError(errno.EMFILE, "Too many open files"), False, "open files"),
        (OSError(errno.ENFILE, "Too many open files in system"), False, "open files"),
        (MemoryError(), False, "memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), False, "memory"),
        (RuntimeError("std::bad_alloc"), True, "memory"),
        (RuntimeError("Os { code: 24, message: \"Too many open files\" }"), True, "open files"),
        (RuntimeError("Failed to allocate memory for requested buffer of size 4096"), True, "memory"),
        (RuntimeError("std::bad_alloc"), False, None),
        (OSError(errno.ENOSPC, "No space left on device"), True, None),
    ],
)  # fmt: skip
def test_the_reason_of_a_failure_is_found_in_its_causes(error: Exception, by_words: bool, named: str | None) -> None:
    """The limit is reported even if other errors wrap it."""
    wrapped = JournalUnwritable(path="j", reason="it is a test")
    wrapped.__cause__ = error
    for each in (error, wrapped):
        found = limit_reached(each, by_words=by_words)
        assert (found is None) if named is None else named in str(found)
