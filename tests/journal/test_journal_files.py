"""The files of a journal are private, never links, readable without write access, and whole when the disk is full."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.journal.conftest import ROOT, UNPRIVILEGED, die, finish, start
from tests.support.journal_tasks import make_checkpoint, make_reject, make_task
from upsert_cli.errors import JournalUnreadable, JournalUnwritable, LocksUnsupported, TaskNotFound, UpsertCliError
from upsert_cli.journal.claims import Claim, request_cancel
from upsert_cli.journal.damage import damaged_files
from upsert_cli.journal.files import locked
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.journal.rejects import JsonLines, read_rejects
from upsert_cli.journal.spool import Incoming
from upsert_cli.journal.task import TaskStatus

PENDING, PROCESSING, DONE = TaskStatus.PENDING, TaskStatus.PROCESSING, TaskStatus.DONE


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder that every user can reach, unlike those below `tmp_path`."""
    folder = Path(tempfile.mkdtemp(prefix="journal-"))
    folder.chmod(0o777)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


def fill(journal: Journal) -> None:
    """Make every kind of file that a journal has."""
    journal.create(make_task("old"))
    (journal.folder / "meta.json").write_bytes(b"garbage")
    (journal.folder / "tasks-000000.json").write_bytes(b"garbage")
    journal.create(make_task("done"))
    with start(journal, "done") as claim:
        finish(claim, DONE)
    journal.create(make_task("dead"))
    claim = start(journal, "dead")
    with JsonLines.open_at(journal.files("dead").rejects, 0) as rejects:
        claim.save(make_checkpoint(40, rejects_bytes=rejects.append([make_reject(1)]), failed=1))
    die(claim)
    journal.create(make_task("new"), incoming=Incoming(journal.layout).folder())
    Incoming(journal.layout).folder()


def owned_by_nobody(folder: Path) -> None:
    """Give a folder to the user for whom permissions count."""
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, UNPRIVILEGED, UNPRIVILEGED, follow_symlinks=False)


# -- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_all_files_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """With any umask, folders have mode 0700 and files 0600, even new folders above the journal."""
    before = os.umask(umask)
    try:
        fill(Journal(tmp_path / "state" / "upsert-cli"))
    finally:
        os.umask(before)
    modes = {path.relative_to(tmp_path): stat.S_IMODE(path.lstat().st_mode) for path in tmp_path.rglob("*")}
    assert {path for path in modes if modes[path] != (0o700 if (tmp_path / path).is_dir() else 0o600)} == set()
    names = {path.name for path in modes}
    assert names >= {"README", "meta.json", "tasks-000001.json", "tasks-000001.json.bak", "dead.jsonl", "dead.progress"}
    assert names >= {"dead.lease", "allocation.lock", "tasks-000001.lock", "upsert-cli", "state", "new"}


def test_a_readme_explains_the_folder(journal: Journal) -> None:
    """The README explains the folder and the effect of removing it."""
    journal.create(make_task())
    text = (journal.folder / "README").read_text()
    assert "belongs to upsert-cli" in text
    for path in journal.folder.iterdir():
        assert path.name in ("README", "meta.json") or path.name.split("-")[0].split(".")[0] in text


def test_the_lease_file_of_a_completed_task_is_removed(journal: Journal) -> None:
    """A journal of many tasks does not fill up with files of completed ones."""
    for number in range(3):
        journal.create(make_task(f"t{number}"))
        with start(journal, f"t{number}") as claim:
            claim.save(make_checkpoint(40))
            finish(claim, DONE)
    assert list((journal.folder / "active").iterdir()) == []


# -- links ------------------------------------------------------------------------------------------------------------

USES: dict[str, Callable[[Journal], object]] = {
    "tasks-000000.json": lambda journal: journal.find("dead"),
    "meta.json": lambda journal: journal.list(),
    "active/dead.progress": lambda journal: journal.find("dead"),
    "active/dead.lease": lambda journal: Claim.take(journal, "dead"),
    "locks/allocation.lock": lambda journal: journal.create(make_task("new")),
    "locks/tasks-000000.lock": lambda journal: journal.create(make_task("new")),
    "tasks-000000.json.tmp": lambda journal: journal.create(make_task("new")),
    "rejects/dead.jsonl": lambda journal: JsonLines.open_at(journal.files("dead").rejects, 0),
}


@pytest.mark.parametrize("name", USES)
def test_files_are_never_followed_through_a_link(journal: Journal, tmp_path: Path, name: str) -> None:
    """A link in place of a file is an error, and its target stays unchanged."""
    journal.create(make_task("dead"))
    die(start(journal, "dead"))
    victim = tmp_path / "victim"
    victim.write_text('{"format": 1}')
    path = journal.folder / name
    path.unlink(missing_ok=True)
    path.symlink_to(victim)
    with pytest.raises(UpsertCliError, match="symbolic link"):
        USES[name](Journal(journal.folder))
    assert victim.read_text() == '{"format": 1}'


@pytest.mark.parametrize("name", ["locks", "active", "rejects", "spool"])
def test_folders_inside_the_journal_are_never_links(journal: Journal, tmp_path: Path, name: str) -> None:
    """A link in place of a folder is an error, and nothing is written to its target."""
    journal.folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (journal.folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalUnwritable):
        journal.create(make_task())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_the_journal_itself_may_be_a_link(tmp_path: Path) -> None:
    """The owner may link the journal to another folder, even one that does not exist yet."""
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "journal")
    Journal(tmp_path / "link").create(make_task())
    assert Journal(tmp_path / "disk" / "journal").find("t") == make_task()


# -- rights -----------------------------------------------------------------------------------------------------------


def test_a_read_only_journal_can_be_read(open_folder: Path, request: pytest.FixtureRequest) -> None:
    """List, find and the check for a runner need no write access; other operations name the missing permission."""
    journal = Journal(open_folder / "journal")
    fill(journal)
    claim = Claim.take(journal, "done")
    owned_by_nobody(journal.folder)
    for path in (journal.folder, *journal.folder.rglob("*")):
        path.chmod(0o500 if path.is_dir() else 0o400)
    request.getfixturevalue("unprivileged")
    reader = Journal(journal.folder)
    assert [task.id for task in reader.list()] == ["new", "dead", "done"]
    assert (reader.find("dead").rows, len(reader.find("dead").failed_items)) == (40, 1)
    assert (reader.is_running("done"), reader.is_running("dead")) == (True, False)
    assert len(damaged_files(reader)) == 2
    for write in (
        lambda: reader.create(make_task("t")),
        lambda: request_cancel(reader, "dead"),
        lambda: Claim.take(reader, "dead"),
        lambda: Incoming(reader.layout).folder(),
        lambda: JsonLines.open_at(reader.files("dead").rejects, 0),
    ):
        with pytest.raises(
            JournalUnwritable, match=rf"{reader.folder}\S*: Permission denied; make room or give access"
        ):
            write()
    claim.release()


@pytest.mark.parametrize("name", [".", "tasks-000001.json", "meta.json", "active/dead.progress"])
def test_an_unreadable_journal_is_not_an_empty_one(
    open_folder: Path, request: pytest.FixtureRequest, name: str
) -> None:
    """Files that may not be read are named, and taken neither for missing nor for damaged."""
    journal = Journal(open_folder / "journal")
    fill(journal)
    owned_by_nobody(journal.folder)
    (journal.folder / name).chmod(0)
    before = sorted(open_folder.rglob("*"))
    request.getfixturevalue("unprivileged")
    uses: list[Callable[[Journal], object]] = [
        lambda reader: reader.find("dead"),
        lambda reader: reader.list(),
        lambda reader: request_cancel(reader, "dead"),
    ]
    for use in uses:
        with pytest.raises(JournalUnreadable, match=rf"{journal.folder}\S*: Permission denied; give this user access"):
            use(Journal(journal.folder))
    (journal.folder / name).chmod(0o700)
    assert sorted(open_folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["", "tasks-000000.json"])
def test_a_file_in_place_of_a_folder_and_the_other_way_round(tmp_path: Path, name: str) -> None:
    """The error names the path."""
    folder = tmp_path / "journal"
    if name:
        (folder / name).mkdir(parents=True)
    else:
        folder.write_text("not a folder")
    for use in (lambda: Journal(folder).list(), lambda: Journal(folder).create(make_task())):
        with pytest.raises((JournalUnreadable, JournalUnwritable), match=str(folder)):
            use()


# -- a disk that is full ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system can only be mounted by root; the strace tests inject the same error")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # also while a failed test keeps files open


def test_a_full_disk_destroys_nothing(small_disk: Path) -> None:
    """A write that does not fit fails with the path, existing data is whole, and the journal works again afterwards."""
    journal = Journal(small_disk / "journal")
    journal.create(make_task())
    claim = start(journal)
    claim.save(make_checkpoint(10))
    rejects = JsonLines.open_at(journal.files("t").rejects, 0)
    length = rejects.append([make_reject(1)])
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    for write in (
        lambda: journal.create(make_task("new", options=LoadOptions(template="y" * 20_000))),
        lambda: journal.change("t", PROCESSING, expect=(PROCESSING,), options=LoadOptions(template="y" * 20_000)),
        lambda: claim.save(make_checkpoint(20)),
        lambda: rejects.append([make_reject(2) | {"payload": "x" * 20_000}]),
    ):
        with pytest.raises(JournalUnwritable, match=rf"{small_disk}/journal\S*: No space left on device"):
            write()
        assert [task.id for task in Journal(journal.folder).list()] == ["t"]
        assert damaged_files(journal) == ()
        assert claim.checkpoint() == make_checkpoint(10)
        assert [item["row"] for item in read_rejects(journal.files("t").rejects)] == [1]
    filler.unlink()
    claim.save(make_checkpoint(20))
    assert rejects.append([make_reject(2)]) == 2 * length
    rejects.close()
    assert [item["row"] for item in read_rejects(journal.files("t").rejects)] == [1, 2]
    assert finish(claim, DONE, checkpoint=make_checkpoint(20)).rows == 20
    claim.release()
    journal.close()


# -- locks ------------------------------------------------------------------------------------------------------------


def test_a_lock_that_is_never_released_ends_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended process does not make others hang forever; they name the locked file."""
    monkeypatch.setattr("upsert_cli.journal.files.LOCK_SECONDS", 0.1)
    path = tmp_path / "locks" / "a.lock"
    with locked(path), pytest.raises(UpsertCliError, match=r"a\.lock locked for 0 seconds; look for"), locked(path):
        raise AssertionError("two processes hold one lock")
    with locked(path):
        assert path.exists()


def test_a_file_system_without_locks_is_refused(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks nothing is written, and the message says where the journal can be."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LocksUnsupported, match=r"allocation\.lock cannot be locked.*local disk.*--journal"):
        journal.create(make_task())
    assert journal.list() == []


def test_a_file_system_without_hard_links_keeps_a_copy(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The previous generation is kept on any file system."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    journal.create(make_task("a"))
    journal.create(make_task("b"))
    (journal.folder / "tasks-000000.json").write_bytes(b"")
    assert [task.id for task in Journal(journal.folder).list()] == ["a"]
    journal.create(make_task("c"))
    assert [task.id for task in Journal(journal.folder).list()] == ["c", "a"]
    assert stat.S_IMODE((journal.folder / "tasks-000000.json.bak").stat().st_mode) == 0o600


def test_the_journal_loads_nothing_heavy() -> None:
    """No heavy package, nor filelock and asyncio, which would cost as much as all the rest together."""
    code = "import sys, upsert_cli.journal.journal; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert "tinydb" in loaded
    assert loaded.isdisjoint({"chromadb", "fastembed", "pyarrow", "numpy", "click", "rich", "filelock", "asyncio"})


def test_a_removed_journal_is_noticed(journal: Journal) -> None:
    """A process that has read a journal notices its removal."""
    journal.create(make_task())
    journal.find("t")
    shutil.rmtree(journal.folder)
    with pytest.raises(TaskNotFound):
        journal.find("t")
    assert journal.list() == []
    assert journal.create(make_task()) == journal.find("t")
