"""Chroma's database without Chroma: an answer or an error, and never "nothing" for "unknown"."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.loading import a_target, numbered, opened, some_rows
from upsert_cli.errors import TargetBusy, UpsertCliError
from upsert_cli.store.chroma.local import LocalFolder
from upsert_cli.store.folder import DATABASE_NAME
from upsert_cli.store.target import Target

# Fills a transaction that does not fit into memory, and is killed in the middle of it.
KILLED = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 5")
database.execute("BEGIN")
database.execute("CREATE TABLE spilled (text)")
database.executemany("INSERT INTO spilled VALUES (?)", [("x" * 1000,)] * 1000)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def loaded(tmp_path: Path) -> Target:
    """Return a collection with some rows and a flushed index."""
    target = a_target(tmp_path)
    with opened(target) as (store, _):
        store.write(some_rows(numbered(0, 20)))
    return target


def test_a_writer_that_was_killed_hides_nothing(loaded: Target) -> None:
    """The first reader rolls back the killed writer's transaction, and finds the collection in its previous state."""
    folder = Path(loaded.path)
    location = LocalFolder(path=folder, collection=loaded.collection)
    before, index = location.describe(), location.index.path()
    assert before is not None
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder / DATABASE_NAME)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (folder / f"{DATABASE_NAME}-journal").stat().st_size > 0
    assert location.list_collections() == [(before, 20)]
    assert location.index.path() == index
    assert location.describe() == before


def test_a_database_that_is_locked_is_busy(loaded: Target) -> None:
    """A collection is not reported missing because another program is writing."""
    location = LocalFolder(path=Path(loaded.path), collection=loaded.collection)
    with closing(sqlite3.connect(location.path / DATABASE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TargetBusy):
            location.describe()
        assert location.index.is_flushed() is None


def test_a_file_that_is_not_a_database_is_unusable(loaded: Target) -> None:
    """Garbage is an error that names the file; an empty or missing file has no collections."""
    location = LocalFolder(path=Path(loaded.path), collection=loaded.collection)
    path = location.path / DATABASE_NAME
    path.write_bytes(b"garbage" * 1000)
    with pytest.raises(UpsertCliError, match=f"{path} cannot be used"):
        location.describe()
    path.write_bytes(b"")
    assert location.describe() is None
    path.unlink()
    assert location.describe() is None


@pytest.mark.parametrize("made", [0, 1, 9, 10, 12, 16])
def test_a_database_whose_tables_are_not_all_made_is_empty(loaded: Target, tmp_path: Path, made: int) -> None:
    """Chroma was killed while it made them one after the other: nothing is found, and a load goes on from there."""
    with closing(sqlite3.connect(Path(loaded.path) / DATABASE_NAME)) as whole:
        (table,) = whole.execute("SELECT sql FROM sqlite_master WHERE name = 'migrations'").fetchone()
        steps = whole.execute("SELECT sql, dir, version, filename, hash FROM migrations ORDER BY rowid").fetchall()
    target = a_target(tmp_path / "other")
    folder = Path(target.path)
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / DATABASE_NAME, isolation_level=None)) as partial:
        partial.execute(table)
        for sql, *step in steps[:made]:
            partial.executescript(sql)
            partial.execute(
                "INSERT INTO migrations (dir, version, filename, hash, sql) VALUES (?, ?, ?, ?, ?)", [*step, sql]
            )
    location = LocalFolder(path=folder, collection=target.collection)
    assert (location.describe(), location.state(), location.list_collections()) == (None, None, [])
    with opened(target) as (store, opening):
        assert opening.upgrade is None
        store.write(some_rows(numbered(0, 20)))
    state = location.state()
    assert state is not None
    assert state.records == 20


def test_a_folder_without_access_is_named_with_a_remedy(loaded: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be listed is reported like a file that may not be read."""
    known = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        if path.name == DATABASE_NAME:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return known(path, **options)

    monkeypatch.setattr(Path, "stat", stat)  # the tests may run as a user with access to everything
    location = LocalFolder(path=Path(loaded.path), collection=loaded.collection)
    for ask in (location.list_collections, location.describe, location.state):
        with pytest.raises(UpsertCliError, match=f"{DATABASE_NAME} cannot be used: Permission denied; give this user"):
            ask()
