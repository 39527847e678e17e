"""The tool's files are private to their user under any umask, and never written through a link."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from tests.support.items import Items
from tests.support.terminal import Terminal

UNTOUCHED = '{"format": 1}\n'


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_all_that_is_kept_is_private_whatever_the_umask(tiny: Terminal, make_items: Items, umask: int) -> None:
    """After every command that writes, folders have mode 0700 and files 0600, Chroma's among them."""
    tiny.env |= {"UPSERT_CLI_JOURNAL": str(tiny.folder / "state" / "journal")}
    bad = [*make_items(5), {"object_id": ""}]
    tiny.write("a.jsonl", bad)
    text = "".join(json.dumps(item) + "\n" for item in bad)
    for line, code in (
        ("run a.jsonl --task-id a", 3),
        ("run - --task-id b", 3),
        ("restart a --failed-only", 3),
        ("cancel a", 1),
        ("verify b --repair", 0),
        ("journal repair", 0),
    ):
        _type_with(tiny, umask, line, code, stdin=text)
    state = tiny.folder / "state" / "journal"
    (state / "tasks-000000.json").write_bytes(b"\0" * 100)
    _type_with(tiny, umask, "journal repair", 0)
    (state / "tasks-000000.json").chmod(0o600)
    for folder in (tiny.folder / "state", tiny.folder / "chroma"):
        for path in (folder, *folder.rglob("*")):
            assert stat.S_IMODE(path.lstat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def _type_with(terminal: Terminal, umask: int, line: str, code: int, *, stdin: str = "") -> None:
    before = os.umask(umask)
    try:
        terminal.type(f"upsert-cli {line}", expect=code, stdin=stdin)
    finally:
        os.umask(before)


# Which file of a journal with the task t, and a command that would write, or read, through a link there.
REFUSED = {
    "chroma/.upsert-cli.lock": "upsert-cli run a.jsonl",
    "journal/locks/allocation.lock": "upsert-cli run a.jsonl",
    "journal/locks/tasks-000000.lock": "upsert-cli restart t",
    "journal/tasks-000000.json": "upsert-cli restart t",
    "journal/tasks-000000.json.tmp": "upsert-cli restart t",
    "journal/meta.json": "upsert-cli list",
    "journal/active/t.lease": "upsert-cli restart t",
    "journal/active/t.progress.tmp": "upsert-cli restart t --from-start",
    "journal/rejects/t.jsonl": "upsert-cli restart t --from-start",
}
REPLACED = {
    "journal/tasks-000000.json.bak": "upsert-cli restart t --from-start",
    "journal/active/t.progress": "upsert-cli restart t --from-start",
    "journal/rejects/t~retry.jsonl": "upsert-cli restart t --failed-only",
}


@pytest.fixture
def victim(tiny: Terminal) -> Path:
    """Return a file that must not change, in a folder with a task t that has a reject."""
    tiny.write("a.jsonl", [{"object_id": "a", "payload": {"text": "x"}}, {"object_id": ""}])
    tiny.type("upsert-cli run a.jsonl --task-id t", expect=3)
    path = tiny.folder / "victim"
    path.write_text(UNTOUCHED)
    path.chmod(0o644)
    return path


def _assert_untouched(victim: Path) -> None:
    assert (victim.read_text(), stat.S_IMODE(victim.stat().st_mode)) == (UNTOUCHED, 0o644)


def test_no_file_is_opened_through_a_link(tiny: Terminal, victim: Path) -> None:
    """A link in place of one of our files is one clear error, and its target stays unchanged."""
    for name, line in REFUSED.items():
        planted = tiny.folder / name
        kept = planted.rename(tiny.folder / "kept") if planted.exists() else None
        planted.symlink_to(victim)
        errors = tiny.type(f"{line} -q", expect=1).stderr.splitlines()
        (error,) = [shown for shown in errors if shown.startswith("error: ")]
        assert "symbolic link" in error
        assert planted.name in error
        _assert_untouched(victim)
        planted.unlink(missing_ok=True)
        if kept is not None:
            kept.rename(planted)
        assert tiny.info("t")["status"] != "processing"


def test_no_file_is_replaced_through_a_link(tiny: Terminal, victim: Path) -> None:
    """Where one of our files is replaced completely, the link is replaced and its target stays."""
    for name, line in REPLACED.items():
        planted = tiny.folder / name
        planted.unlink(missing_ok=True)
        planted.symlink_to(victim)
        tiny.type(line, expect=3)
        _assert_untouched(victim)
        assert not planted.is_symlink()
