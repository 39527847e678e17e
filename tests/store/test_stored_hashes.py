"""The hashes in Chroma's database: certain ones or none, so that no record counts as unchanged by mistake."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.loading import a_target, numbered, of_model, opened, plain_client, some_rows
from upsert_cli.store.base import Verdict
from upsert_cli.store.chroma.tables import changed_hashes
from upsert_cli.store.folder import DATABASE_NAME
from upsert_cli.store.process import StoreProcess
from upsert_cli.store.target import Target

IDS = numbered(0, 20)
SAME = ["first.first"] * len(IDS)
# Changes a database in a transaction that does not fit into memory, and is killed in the middle of it.
KILLED = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 5")
database.execute("BEGIN")
database.execute("UPDATE embedding_metadata SET string_value = 'other.other'")
database.execute("CREATE TABLE spilled (text)")
database.executemany("INSERT INTO spilled VALUES (?)", [("x" * 1000,)] * 1000)
os.kill(os.getpid(), signal.SIGKILL)
"""
QUEUED = (
    "INSERT INTO embeddings_queue (seq_id, operation, topic, id) "
    "SELECT (SELECT MAX(seq_id) + 1 FROM max_seq_id), 2, 'persistent://default/default/' || id, 'id-000000' "
    "FROM collections WHERE name = ?"
)


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Target:
    """Return a folder with two collections of ours that have the same ids, and one of another program's."""
    target = a_target(tmp_path_factory.mktemp("master"))
    for name, mark in (("default", "first"), ("other", "second")):
        with opened(replace(target, collection=name)) as (store, _):
            store.write(some_rows(IDS, mark=mark))
    with plain_client(target) as client:
        foreign = client.create_collection("foreign", embedding_function=None)
        vectors = np.ones((len(IDS), target.model.dimension), dtype=np.float32)
        foreign.add(ids=IDS, embeddings=vectors, documents=IDS)
    return target


@pytest.fixture
def target(master: Target, tmp_path: Path) -> Target:
    """Return a copy of these collections."""
    path = tmp_path / "chroma"
    shutil.copytree(master.path, path)
    return replace(master, path=str(path))


def _hashes(target: Target, ids: list[str] = IDS) -> dict[str, str]:
    """Return the known stored hashes, none of which the caller expects."""
    changed = changed_hashes(Path(target.path), target.collection, dict.fromkeys(ids, "other"))
    assert list(changed) == ids
    return {one: stored for one, stored in changed.items() if stored}


def _change(target: Target, *statements: str, values: tuple[Any, ...] = ()) -> None:
    with closing(sqlite3.connect(Path(target.path) / DATABASE_NAME, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement, values)


def test_each_collection_has_its_own_hashes(target: Target) -> None:
    """Only records that exist are answered."""
    assert _hashes(target, [*IDS, "no", "", "'", '"', "\\"]) == dict.fromkeys(IDS, "first.first")
    assert _hashes(replace(target, collection="other")) == dict.fromkeys(IDS, "second.second")
    assert _hashes(replace(target, collection="foreign")) == {}
    assert _hashes(replace(target, collection="missing")) == {}


def test_equal_hashes_are_not_returned(target: Target) -> None:
    """An id with any characters is among the answers unless its record has exactly the given hash."""
    ids = ['a"b', "c\\u0041d", "e\nf", "\u2028", "é😀", "g/h", "{}", "\x7f\x01"]
    with opened(target) as (records, _):
        records.write(some_rows(ids, mark="third"))
    path, name = Path(target.path), target.collection
    assert changed_hashes(path, name, dict.fromkeys([*ids, *IDS], "third.third")) == dict.fromkeys(IDS, "first.first")
    assert changed_hashes(path, name, dict.fromkeys(ids, "first.first")) == dict.fromkeys(ids, "third.third")


@pytest.mark.parametrize("odd", ["\0", "\ud800"])
def test_an_id_that_no_record_can_have_makes_the_others_uncertain(target: Target, odd: str) -> None:
    """JSON or SQLite may understand it as another one."""
    assert _hashes(target, [*IDS, odd]) == {}


def _lock(target: Target) -> sqlite3.Connection:
    other = sqlite3.connect(Path(target.path) / DATABASE_NAME, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other


UNCERTAIN: dict[str, Callable[[Target], object]] = {
    "queued": lambda target: _change(target, QUEUED, values=("default",)),
    "behind": lambda target: _change(target, "DELETE FROM max_seq_id"),
    "bytes": lambda target: _change(target, "UPDATE max_seq_id SET seq_id = CAST('9' AS BLOB)"),
    "table": lambda target: _change(target, "ALTER TABLE embedding_metadata RENAME TO moved"),
    "column": lambda target: _change(target, "ALTER TABLE embeddings_queue RENAME COLUMN topic TO moved"),
    "scope": lambda target: _change(target, "UPDATE segments SET scope = 'RECORD' WHERE scope = 'METADATA'"),
    "locked": _lock,
    "no database": lambda target: (Path(target.path) / DATABASE_NAME).unlink(),
    "garbage": lambda target: (Path(target.path) / DATABASE_NAME).write_bytes(b"garbage" * 1_000),
}


@pytest.mark.parametrize("change", UNCERTAIN.values(), ids=UNCERTAIN)
def test_no_hash_is_better_than_a_wrong_one(target: Target, change: Callable[[Target], object]) -> None:
    """Nothing is answered while records are queued, or where the tables are not as expected or cannot be read."""
    kept = change(target)
    assert _hashes(target) == {}
    if isinstance(kept, sqlite3.Connection):
        kept.close()


def test_the_queue_of_another_collection_does_not_matter(target: Target) -> None:
    """Only changes that are queued for the collection itself count."""
    _change(target, QUEUED, values=("other",))
    assert _hashes(target) == dict.fromkeys(IDS, "first.first")
    assert _hashes(replace(target, collection="other")) == {}


def test_a_transaction_that_was_cut_short_is_not_read(target: Target) -> None:
    """Pages that a killed program has written before its commit are no answer; Chroma undoes them."""
    path = Path(target.path) / DATABASE_NAME
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.with_name(f"{path.name}-journal").stat().st_size > 0
    assert _hashes(target) == {}
    with StoreProcess(target) as store:
        assert set(store.compare(IDS, SAME).verdicts) == {Verdict.UNCHANGED}


def test_a_write_ahead_log_is_read_too(target: Target) -> None:
    """A record that is only in the write-ahead log is read in its current state."""
    _change(target, "PRAGMA journal_mode = WAL")
    with closing(sqlite3.connect(Path(target.path) / DATABASE_NAME, isolation_level=None)) as other:
        other.execute("UPDATE embedding_metadata SET string_value = 'new.new' WHERE key = 'upsert_hash'")
        assert _hashes(target) == dict.fromkeys(IDS, "new.new")


# -- a comparison ------------------------------------------------------------------------------------------------------


def test_unchanged_records_cost_no_call(target: Target) -> None:
    """Unchanged records are compared without the process, even while it is stopped."""
    with StoreProcess(target) as store:
        store.opened()
        os.kill(store.pid, signal.SIGSTOP)
        try:
            assert store.compare(IDS, SAME).verdicts == [Verdict.UNCHANGED] * len(IDS)
        finally:
            os.kill(store.pid, signal.SIGCONT)


def test_a_written_record_is_compared_as_written(target: Target) -> None:
    """A comparison right after a write sees it, and so does one after the next write of the same id."""
    with StoreProcess(target) as store:
        for mark in ("second", "third"):
            changed = some_rows(IDS[:5], mark=mark)
            assert store.compare(IDS, SAME).verdicts[5:] == [Verdict.UNCHANGED] * 15
            assert store.write(changed) == []
            hashes = [f"{mark}.{mark}"] * 5 + SAME[5:]
            assert store.compare(IDS, hashes).verdicts == [Verdict.UNCHANGED] * len(IDS)
            assert store.compare(IDS, SAME).verdicts == [Verdict.TEXT] * 5 + [Verdict.UNCHANGED] * 15
        assert store.compare(["new", *IDS], ["x.y", *SAME]).verdicts[0] is Verdict.NEW


@pytest.mark.parametrize("by_sql", [True, False])
def test_a_comparison_is_the_same_either_way(target: Target, monkeypatch: pytest.MonkeyPatch, *, by_sql: bool) -> None:
    """Verdicts and keys in the order of the rows do not depend on where the hashes are read."""
    if not by_sql:
        monkeypatch.setattr("upsert_cli.store.chroma.local.changed_hashes", lambda *known: dict.fromkeys(known[-1], ""))
    with opened(target) as (records, _):
        records.write(replace(some_rows(["meta", "text", "chunk"], extra=1)))
    ids = ["new", IDS[3], "meta", "text", IDS[4], "chunk", IDS[4][::-1]]
    hashes = ["x.y", "first.first", "first.other", "other.first", "first.first", "first.first#", "x.y"]
    with StoreProcess(target) as store:
        found = store.compare(ids, hashes)
        assert [verdict.name for verdict in found.verdicts] == [
            "NEW", "UNCHANGED", "METADATA", "TEXT", "UNCHANGED", "TAKEN", "NEW",
        ]  # fmt: skip
        assert set(found.stored_keys[2]) == set(found.stored_keys[3]) == {"name", "upsert_hash", "extra"}
        again = store.compare(ids, hashes, with_keys=True)
        assert again.verdicts == found.verdicts
        assert set(again.stored_keys) == {1, 2, 3, 4, 5}


def test_the_records_of_another_program_are_not_unchanged(target: Target) -> None:
    """Records without a hash are compared through Chroma, and have to be written."""
    foreign = of_model(replace(target, collection="foreign"), name="")
    with StoreProcess(foreign) as store:
        assert set(store.compare(IDS, SAME).verdicts) == {Verdict.TEXT}
