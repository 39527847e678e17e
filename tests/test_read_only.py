"""A read-only Chroma folder: reading commands work and write nothing into it, and others name the obstacle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.forked import Forker, run_forked
from tests.support.items import make_some_items
from tests.support.other_program import plain_chroma
from tests.support.terminal import Terminal

READING = {
    "upsert-cli verify t": 0,
    "upsert-cli verify": 0,
    "upsert-cli verify t --repair": 0,
    "upsert-cli query hello": 0,
    "upsert-cli collections": 0,
    "upsert-cli run a.jsonl --dry-run": 0,
    "upsert-cli run a.jsonl": 1,
}
QUEUE = """
made = client.get_collection("default")
made.modify(configuration={"hnsw": {"sync_threshold": 5}})
client.get_collection("default").upsert(["late"], [[0.5] * 384], documents=["late"])
made.modify(configuration={"hnsw": {"sync_threshold": 2}})
"""
MOUNT = """
import subprocess
subprocess.run(["mount", "--bind", "chroma", "chroma"], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", "chroma"], check=True)
"""


def _load(folder: Path, tiny_model: Path) -> Terminal:
    """Load twenty items in a folder with temporary files of its own."""
    variables = {f"UPSERT_CLI_{command}_MODEL_PATH": str(tiny_model) for command in ("RUN", "VERIFY", "QUERY")}
    terminal = Terminal(folder, variables | {"TMPDIR": str(folder / "temporary")})
    (folder / "temporary").mkdir()
    terminal.write("a.jsonl", make_some_items(20))
    terminal.type("upsert-cli run a.jsonl --task-id t")
    return terminal


@pytest.fixture
def loaded(tmp_path: Path, tiny_model: Path) -> Terminal:
    """Return a terminal with a load."""
    return _load(tmp_path, tiny_model)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Terminal:
    """Return a terminal with a load, for commands that change no byte of it."""
    return _load(tmp_path_factory.mktemp("kept"), tiny_model)


def _contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def mounting() -> Iterator[Forker]:
    """Yield a server whose processes alone see the folders that they mount read-only."""
    with closing(Forker(["unshare", "-rm"])) as server:
        yield server


@pytest.fixture(scope="module")
def obedient() -> Iterator[Forker]:
    """Yield a server of processes for which permissions count, also where the tests run as root."""
    before = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.getuid() == 0 else []
    if before and shutil.which(before[0]) is None:
        pytest.skip("root may write anything")
    with closing(Forker(before)) as server:
        yield server


def _on_a_read_only_mount(server: Forker, terminal: Terminal, line: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", MOUNT]
    mounted = run_forked(server, program, folder=terminal.folder, environment=terminal.environment)
    assert mounted.returncode == 0, mounted.stderr
    return run_forked(server, terminal.arguments(line), folder=terminal.folder, environment=terminal.environment)


def _mounts() -> bool:
    mount = ["unshare", "-rm", "mount", "--bind", ".", "."]
    return (
        shutil.which("unshare") is not None and not subprocess.run(mount, capture_output=True, check=False).returncode
    )


@pytest.mark.skipif(not _mounts(), reason="needs user namespaces")
@pytest.mark.parametrize("line", READING)
def test_a_read_only_mount_is_read(mounting: Forker, kept: Terminal, line: str) -> None:
    """Reading commands work on a read-only mount, and a load names the obstacle; no byte changes."""
    before = _contents(kept.folder / "chroma")
    done = _on_a_read_only_mount(mounting, kept, line)
    assert done.returncode == READING[line], done.stderr
    if "dry-run" in line:
        assert "20 unchanged" in done.stderr
    if READING[line]:
        assert "Read-only file system" in done.stderr
    assert _contents(kept.folder / "chroma") == before
    assert list((kept.folder / "temporary").glob("upsert-cli-*")) == []


@pytest.mark.skipif(not _mounts(), reason="needs user namespaces")
def test_a_collection_that_reading_would_flush_is_read_from_a_copy(mounting: Forker, loaded: Terminal) -> None:
    """A collection whose index files would be written by reading alone is read from a copy on a read-only mount."""
    plain_chroma(loaded, QUEUE)
    before = _contents(loaded.folder / "chroma")
    assert _on_a_read_only_mount(mounting, loaded, "upsert-cli query late").returncode == 0
    assert _on_a_read_only_mount(mounting, loaded, "upsert-cli verify t").returncode in (0, 3)
    assert _contents(loaded.folder / "chroma") == before


@pytest.mark.skipif(not _mounts(), reason="needs user namespaces")
@pytest.mark.parametrize("line", ["upsert-cli verify t", "upsert-cli query hello", "upsert-cli collections"])
def test_a_transaction_to_undo_is_named(mounting: Forker, loaded: Terminal, line: str) -> None:
    """A program that was killed in a transaction left one to undo, which a read-only folder does not allow."""
    killed = (
        "import os, sqlite3\ndatabase = sqlite3.connect('chroma/chroma.sqlite3', isolation_level=None)\n"
        "database.execute('PRAGMA cache_size = 1')\ndatabase.execute('BEGIN IMMEDIATE')\n"
        "database.execute('UPDATE embedding_metadata SET string_value = string_value || ?', ('x' * 9000,))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", killed], cwd=loaded.folder, check=False)
    before = _contents(loaded.folder / "chroma")
    assert any(path.name.endswith("-journal") for path in before)
    done = _on_a_read_only_mount(mounting, loaded, line)
    assert done.returncode == 1
    assert "was killed" in done.stderr
    assert "Traceback" not in done.stderr
    assert _contents(loaded.folder / "chroma") == before
    assert loaded.type(line).returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="needs permissions")
@pytest.mark.parametrize("line", [line for line, code in READING.items() if not code])
def test_permissions_may_make_it_read_only(obedient: Forker, kept: Terminal, line: str) -> None:
    """A folder that this user may only read is read, with a lease of another user's or without one."""
    chroma = kept.folder / "chroma"
    before = _contents(chroma)
    for path in (*chroma.rglob("*"), chroma):
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = run_forked(obedient, kept.arguments(line), folder=kept.folder, environment=kept.environment)
    for path in (chroma, *chroma.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 0, done.stderr
    assert {path: content for path, (content, _) in _contents(chroma).items()} == {
        path: content for path, (content, _) in before.items()
    }
