"""The programs that have a Chroma folder open: found by their files, if they keep them open."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from upsert_cli.store import folder as folder_module
from upsert_cli.store.folder import WRITER_PROGRAM, find_openers, prepare_folder

HOLD = "import sys, time\nheld = open(sys.argv[1])\nprint('held', flush=True)\ntime.sleep(float(sys.argv[2]))\n"


@pytest.fixture(params=["proc", "lsof"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with the files of a Chroma database; without /proc, `lsof` is used, as on macOS."""
    monkeypatch.setattr(folder_module, "SEARCH_SECONDS", 60.0)  # also on a busy machine
    if request.param == "lsof":
        if shutil.which("lsof") is None:
            pytest.skip("lsof is not installed")
        monkeypatch.setattr(folder_module, "_PROC", tmp_path / "no-proc")
    (tmp_path / "segment").mkdir()
    for name in ("chroma.sqlite3", "segment/data_level0.bin", ".upsert-cli.lock"):
        (tmp_path / name).write_bytes(b"content")
    return tmp_path


@contextmanager
def _holding(
    file: Path, *, seconds: float = 60.0, code: str = HOLD, path: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Runs a program that has a file open; `path` is where it imports from."""
    command = [sys.executable, "-c", code, str(file), str(seconds)]
    environment = os.environ if path is None else os.environ | {"PYTHONPATH": str(path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=file.parent, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.mark.parametrize("name", ["chroma.sqlite3", "segment/data_level0.bin"])
def test_a_process_with_an_open_file_is_found(folder: Path, name: str) -> None:
    """A process with the database or an index file open is named, by whatever path it opened the file."""
    assert find_openers(folder) == {}
    link = folder / "other-name"
    link.hardlink_to(folder / name)
    with _holding(link) as process:
        ((pid, program),) = find_openers(folder).items()
        assert pid == process.pid
        assert "python" in program
    assert find_openers(folder) == {}


def test_a_file_that_is_soon_closed_does_not_count(folder: Path) -> None:
    """A program that only copies a file, or reads it for a moment, is not an opener."""
    with _holding(folder / "chroma.sqlite3", seconds=0.5):
        assert find_openers(folder, patience=60.0) == {}


@pytest.mark.parametrize("name", [".upsert-cli.lock", "other.txt"])
def test_other_files_do_not_count(folder: Path, name: str) -> None:
    """A process that has anything else in the folder open is no opener, and neither is this process."""
    (folder / name).touch()
    with (folder / "chroma.sqlite3").open(), _holding(folder / name):
        assert find_openers(folder, patience=0.0) == {}


def test_our_own_processes_do_not_count(folder: Path) -> None:
    """A writer or reader of ours is known by the program that it runs."""
    package = folder / "fake" / "upsert_cli" / "store"
    package.mkdir(parents=True)
    (package / "child.py").write_text(f"def main():\n    exec({HOLD!r})\n")
    database = folder / "chroma.sqlite3"
    with _holding(database) as other, _holding(database, code=WRITER_PROGRAM, path=folder / "fake"):
        assert [*find_openers(folder, patience=0.0)] == [other.pid]


def test_two_loads_may_create_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that another load creates at the same moment is used."""
    path = tmp_path / "chroma"
    is_folder = Path.is_dir

    def is_folder_a_moment_before(self: Path) -> bool:
        found = is_folder(self)
        if self == path and not found:
            self.mkdir()
        return found

    monkeypatch.setattr(Path, "is_dir", is_folder_a_moment_before)
    assert prepare_folder(path)
