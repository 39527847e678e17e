"""`journal check` and `journal repair`: damage is reported and moved aside, and every whole task is saved."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.journal.conftest import reach
from tests.support.journal_tasks import make_task
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until
from upsert_cli.embedding.cache import downloading, staging
from upsert_cli.journal.claims import request_cancel
from upsert_cli.journal.damage import whole_records
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.task import TaskStatus

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda whole: whole[: len(whole) * 9 // 10],
    "zeroed": lambda whole: bytes(len(whole)),
    "garbage": lambda whole: os.urandom(len(whole)),
    "garbage in front": lambda whole: os.urandom(60) + whole[60:],
}
SAVED = {"truncated": {"a0"}, "zeroed": set(), "garbage": set(), "garbage in front": {"a0", "a1"}}


@pytest.fixture
def segments(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a terminal with a journal of three segments: tasks a0 a1, b0 b1 and c0 c1, each of two states."""
    monkeypatch.setattr("upsert_cli.journal.segments.SEGMENT_TASKS", 2)
    journal = Journal(terminal.journal)
    for task_id in ("a0", "a1", "b0", "b1", "c0", "c1"):
        journal.create(make_task(task_id))
    for task_id in ("a0", "b0", "c0"):
        request_cancel(journal, task_id)
    return terminal


def _segment(terminal: Terminal, number: int, suffix: str = "") -> Path:
    return terminal.journal / f"tasks-{number:06}.json{suffix}"


def _damage(path: Path, kind: str) -> bytes:
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    return path.read_bytes()


def _check(terminal: Terminal, *, expect: int) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(terminal.type("upsert-cli journal check --json", expect=expect).stdout)
    assert value["sound"] is (expect == 0)
    return value


def test_a_sound_journal_and_a_missing_one_are_sound(segments: Terminal, tmp_path: Path) -> None:
    """Checking or repairing a missing journal does not create it."""
    assert _check(segments, expect=0)["damaged"] == []
    assert "sound" in segments.type("upsert-cli journal repair").stderr
    nothing = tmp_path / "nothing"
    for command in ("check", "repair"):
        segments.type(f"upsert-cli journal {command} --journal {nothing}")
    assert not nothing.exists()


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_segment_without_a_backup_is_salvaged(segments: Terminal, kind: str) -> None:
    """The other tasks are listed with a warning, whole tasks are restored, the damaged bytes are kept, and a second repair does nothing."""
    left = _damage(_segment(segments, 0), kind)
    _segment(segments, 0, ".bak").unlink()
    before = segments.type("upsert-cli list --json")
    assert {task["id"] for task in json.loads(before.stdout)} == {"b0", "b1", "c0", "c1"}
    assert "tasks-000000.json is damaged" in before.stderr
    (found,) = _check(segments, expect=1)["damaged"]
    assert Path(found["path"]).name == "tasks-000000.json"
    assert "tasks-000000.json" in segments.type("upsert-cli journal check", expect=1).stdout
    steps = segments.type("upsert-cli journal repair").stdout.splitlines()
    assert any("was moved to" in step for step in steps)
    assert any(f"{len(SAVED[kind])} put back" in step for step in steps)
    listed = segments.statuses()
    assert set(listed) == {"b0", "b1", "c0", "c1"} | SAVED[kind]
    assert list(listed)[:4] == ["c1", "c0", "b1", "b0"]
    if "a0" in listed:
        assert listed["a0"] == "canceled"
    (aside,) = segments.journal.glob("*.damaged-*")
    assert aside.read_bytes() == left
    assert [entry["settled"] for entry in _check(segments, expect=0)["damaged"]] == [True]
    assert json.loads(segments.type("upsert-cli journal repair --json").stdout)["steps"] == []
    assert segments.statuses() == listed


def test_the_backup_is_restored_and_updated_from_the_damaged_file(segments: Terminal) -> None:
    """No task appears twice, and a newer state that only the damaged file has is kept."""
    path = _segment(segments, 0)
    changed = path.read_bytes().replace(b'"updated_at": "2026-', b'"updated_at": "2036-')
    path.write_bytes(changed[: len(changed) * 9 // 10])
    steps = segments.type("upsert-cli journal repair").stdout
    assert "restored from its previous generation" in steps
    assert "1 whole task found, 0 put back, 1 brought to a newer state" in steps
    listed = segments.statuses()
    assert sorted(listed) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert listed["a0"] == "canceled"
    _check(segments, expect=0)


def test_both_generations_are_damaged(segments: Terminal) -> None:
    """A task that one file lost may be in the other, and an empty segment never replaces them."""
    _damage(_segment(segments, 2), "truncated")
    _damage(_segment(segments, 2, ".bak"), "zeroed")
    assert len(_check(segments, expect=1)["damaged"]) == 2
    segments.type("upsert-cli journal repair")
    assert set(segments.statuses()) == {"a0", "a1", "b0", "b1", "c0"}
    _damage(_segment(segments, 1), "zeroed")
    _damage(_segment(segments, 1, ".bak"), "garbage")
    segments.type("upsert-cli journal repair")
    assert set(segments.statuses()) == {"a0", "a1", "c0"}
    assert not _segment(segments, 1).exists()


def test_a_damaged_backup_is_repaired_too(segments: Terminal) -> None:
    """The good file stays unchanged."""
    good = _segment(segments, 0).read_bytes()
    _damage(_segment(segments, 0, ".bak"), "garbage")
    _check(segments, expect=1)
    segments.type("upsert-cli journal repair")
    assert _segment(segments, 0).read_bytes() == good
    _check(segments, expect=0)


def test_a_damaged_only_segment_never_becomes_an_empty_journal(terminal: Terminal) -> None:
    """`list`, `info` and the files in the folder all show that a task was lost."""
    reach(Journal(terminal.journal), TaskStatus.PENDING)
    _damage(_segment(terminal, 0), "zeroed")
    assert "damaged" in terminal.type("upsert-cli info t", expect=1).stderr
    terminal.type("upsert-cli journal repair")
    assert terminal.statuses() == {}
    assert not _segment(terminal, 0).exists()
    assert len(_check(terminal, expect=0)["damaged"]) == 1


def test_an_unreadable_format_file_is_repaired(segments: Terminal) -> None:
    """`journal check` names it."""
    meta = segments.journal / "meta.json"
    meta.write_bytes(bytes(10))
    _check(segments, expect=1)
    segments.type("upsert-cli journal repair")
    assert json.loads(meta.read_text()) == {"format": 1}
    _check(segments, expect=0)


def test_a_newer_format_is_refused_by_every_command(segments: Terminal) -> None:
    """Nothing is read or written, and the message says what to do."""
    (segments.journal / "meta.json").write_text('{"format": 7}')
    segments.write("a.jsonl", [{"object_id": "a", "payload": {"text": "a"}}])
    before = {path: path.read_bytes() for path in segments.folder.rglob("*") if path.is_file()}
    for command in (
        *("info a0", "list", "cancel a0", "restart a0", "verify a0", "run a.jsonl", "categories run a.jsonl"),
        *("journal check", "journal repair"),
    ):
        done = segments.type(f"upsert-cli {command}", expect=1)
        assert "has format 7, this version knows up to 1; upgrade upsert-cli" in done.stderr, command
        assert done.stdout == ""
    assert {path: path.read_bytes() for path in segments.folder.rglob("*") if path.is_file()} == before


def test_a_record_inside_a_record_is_no_task(terminal: Terminal) -> None:
    """A payload that looks like a record never becomes a task, and a truncated string never becomes a record."""
    inner = make_task("inner").as_record()
    outer = make_task("outer", failed_items=({"payload": inner},)).as_record()
    raw = json.dumps({"tasks": {"1": outer}}).encode()
    assert [record["id"] for record in whole_records(b"\0\xff" + raw)] == ["outer"]
    assert list(whole_records(raw.replace(b"data", b"d\xffta"))) == []


# -- leftovers of crashes -----------------------------------------------------------------------------------------


def _wait_for_folder(spool: Path) -> Path:
    wait_until(lambda: any(spool.glob(".incoming-*/*")))
    return next(spool.glob(".incoming-*/*")).parent


def _start_reading(terminal: Terminal, options: str = "") -> tuple[subprocess.Popen[str], Path]:
    """Start a load whose standard input does not end, and return the folder that it is copied into."""
    process = terminal.start(f"upsert-cli run - {options}", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write('{"object_id": "a", "payload": {"text": "x"}}\n')
    process.stdin.flush()
    return process, _wait_for_folder(terminal.journal / "spool")


def test_leftovers_of_crashes_are_listed_and_removed(terminal: Terminal) -> None:
    """Leftovers of a killed process are listed with their size, are not damage, and a repair removes them."""
    process, folder = _start_reading(terminal)
    process.kill()
    process.wait()
    (folder / "0.jsonl").write_text("x" * 1_000)
    (terminal.journal / "spool" / "never-created").mkdir()
    cache = terminal.folder / "models"
    (cache / ".fetch-killed").mkdir(parents=True)
    (cache / ".fetch-killed" / "model.onnx").write_bytes(bytes(5_000))
    (cache / "hub" / "blobs").mkdir(parents=True)
    (cache / "hub" / "blobs" / "1234.incomplete").write_bytes(bytes(300))
    terminal.env["UPSERT_CLI_MODEL_CACHE"] = str(cache)
    found = _check(terminal, expect=0)["leftovers"]
    sizes = {Path(each["path"]).name: each["bytes"] for each in found}
    assert sizes.keys() == {folder.name, "never-created", ".fetch-killed", "1234.incomplete"}
    assert (sizes[".fetch-killed"], sizes["1234.incomplete"]) == (5_000, 300)
    shown = terminal.type("upsert-cli journal check")
    assert f"leftover\tspool/{folder.name}\t1,0" in shown.stdout
    assert "journal repair` removes them" in shown.stderr
    steps = terminal.type("upsert-cli journal repair").stdout
    assert all(name in steps for name in sizes)
    assert _check(terminal, expect=0)["leftovers"] == []
    assert [*(terminal.journal / "spool").iterdir()] == []
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_files_of_a_living_process_are_not_leftovers(terminal: Terminal) -> None:
    """A load that reads standard input, and a model that is being fetched, are neither listed nor disturbed."""
    process, _ = _start_reading(terminal, "--enqueue --task-id t")
    cache = terminal.folder / "models"
    terminal.env["UPSERT_CLI_MODEL_CACHE"] = str(cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UPSERT_CLI_MODEL_CACHE", str(cache))
        with staging() as staged, downloading() as hub:
            (hub / "1234.incomplete").write_bytes(bytes(300))
            assert _check(terminal, expect=0)["leftovers"] == []
            assert terminal.type("upsert-cli journal repair").stdout == ""
            assert (staged.exists(), (hub / "1234.incomplete").exists()) == (True, True)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert [path.name for path in (terminal.journal / "spool" / "t").iterdir()] == ["0.jsonl"]
    assert _check(terminal, expect=0)["leftovers"] == [{"path": str(cache / "hub" / "1234.incomplete"), "bytes": 300}]


def test_leftovers_are_kept_while_the_journal_is_damaged(segments: Terminal) -> None:
    """A copy of standard input stays if its task may be in a damaged file."""
    spool = segments.journal / "spool" / "a0"
    spool.mkdir()
    _damage(_segment(segments, 0), "zeroed")
    assert _check(segments, expect=1)["leftovers"] == []
    segments.type("upsert-cli journal repair")
    assert spool.exists()
