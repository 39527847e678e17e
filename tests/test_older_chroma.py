"""Folders of another version of Chroma: read without a change, upgraded by a load alone, and with a warning."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from chromadb.api.client import Client

from tests.conftest import OTHER_CHROMAS
from tests.support.loading import opened
from tests.support.older_chroma import (
    DIMENSION,
    ROWS,
    VERSIONS,
    content_of,
    older_folder,
    python_with,
    write_folder,
)
from tests.support.terminal import Terminal
from upsert_cli.embedding.identity import Model
from upsert_cli.store.chroma.client import connect_folder
from upsert_cli.store.chroma.database import applied_migrations, is_older, reading
from upsert_cli.store.folder import LEASE_NAME
from upsert_cli.store.target import Target

WITH_MODEL = ("1.0.20", "1.3.7")  # versions that store the name of the embedding function
KINDS = {
    "a": {"s": "changed", "new": 3, "i": 7, "f": 1.5, "yes": True, "no": False, "big": 2**62, "tiny": 1e-300},
    "b": {},
    "c": {},
    "ü d": {"Ü": "ö"},
}
COUNTS = {"default": ROWS, "empty": 0, "flushed": 32, "kinds": 4}


@pytest.fixture
def typing(terminal: Terminal, model: Model) -> Terminal:  # whose weights the versions' function has
    """Return a terminal with an item that is in the older folders already, and brings its vector."""
    terminal.write("a.jsonl", [{"object_id": "o1", "payload": {"text": "another text", "vector": [0.5] * DIMENSION}}])
    return terminal


def _check_reading(typing: Terminal, version: str) -> None:
    """Type all that only reads, and check that nothing in the folder changes."""
    before = content_of(typing.folder / "chroma")
    listed = json.loads(typing.type("upsert-cli collections --json").stdout)
    assert {one["collection"]: one["records"] for one in listed} == COUNTS
    for name in ("default", "kinds", "flushed"):
        found = json.loads(typing.type(f"upsert-cli verify --collection {name} --json").stdout)
        assert (found["ok"], found["records"]) == (True, COUNTS[name])
    done = typing.type("upsert-cli run a.jsonl --dry-run")
    assert "0 inserted, 1 updated" in done.stderr
    assert "a load would upgrade it" in done.stderr
    query = typing.type("upsert-cli query text -n 3 --json", expect=0 if version in WITH_MODEL else 4)
    if version in WITH_MODEL:
        assert len(json.loads(query.stdout)["hits"]) == 3
    assert content_of(typing.folder / "chroma") == before


def _check_loading(typing: Terminal) -> None:
    """Load twice; one record is replaced, the others stay complete, and only one load reports the upgrade."""
    assert "older versions cannot open it afterwards" in typing.type("upsert-cli run a.jsonl --task-id one").stderr
    assert "versions" not in typing.type("upsert-cli run a.jsonl --task-id two").stderr
    assert typing.info("one")["counts"]["updated"] == typing.info("two")["counts"]["unchanged"] == 1
    assert {name: one["metadata"] or {} for name, one in typing.records("kinds").items()} == KINDS
    found = typing.records(vectors=True)
    assert len(found) == ROWS
    for row in range(ROWS):
        vector = np.full(DIMENSION, 0.25)
        vector[row] = 1.0
        wanted = np.full(DIMENSION, 0.5) if row == 1 else vector
        had = np.asarray(found[f"o{row}"]["vector"])
        assert had / np.linalg.norm(had) == pytest.approx(wanted / np.linalg.norm(wanted), abs=1e-5)
    for name in ("default", "kinds", "flushed"):
        typing.type(f"upsert-cli verify --collection {name}")


@pytest.mark.parametrize("version", VERSIONS)
def test_reading_changes_no_byte_of_an_older_folder(typing: Terminal, version: str) -> None:
    """Listing, verifying, querying and a dry run read the folder, and leave it to the version that wrote it."""
    older_folder(version, typing.folder / "chroma")
    _check_reading(typing, version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_load_upgrades_an_older_folder_once(typing: Terminal, version: str) -> None:
    """The first load warns of the upgrade; no record loses anything, and the distance of its index stays."""
    older_folder(version, typing.folder / "chroma")
    _check_loading(typing)


@pytest.mark.slow
def test_the_client_that_upgrades_a_folder_is_not_the_one_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chroma may still read the tables of before with it, so the collection is opened by the next client."""
    folder = tmp_path / "chroma"
    older_folder(VERSIONS[0], folder)
    found_older: list[bool] = []

    def connect(path: str) -> Client:
        with reading(folder) as database:
            found_older.append(is_older(applied_migrations(database)))
        return connect_folder(path)

    monkeypatch.setattr("upsert_cli.store.chroma.client.connect_folder", connect)
    with opened(Target(path=str(folder), collection="default", as_found=True)) as (store, facts):
        assert facts.upgrade is not None
        assert len(store.fetch(rows=ROWS)) == ROWS
    assert found_older == [True, False]


def _form(folder: Path) -> tuple[list[str], dict[str, tuple[list[str], int]]]:
    """Return the names of a folder's files, and the columns and the number of rows of each table but the text index."""
    files = sorted(path.name for path in folder.rglob("*") if path.is_file())
    with closing(sqlite3.connect(folder / "chroma.sqlite3")) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = {name: database.execute(f"SELECT * FROM {name}") for name in names if "fulltext" not in name}  # noqa: S608
        return files, {
            name: ([one[0] for one in rows.description], len(rows.fetchall())) for name, rows in tables.items()
        }


@pytest.mark.parametrize("version", VERSIONS)
def test_older_versions_write_the_folders_of_these_tests(tmp_path: Path, version: str) -> None:
    """An environment with that version makes the same files and tables, so what holds for the others holds for them."""
    write_folder(python_with(version, OTHER_CHROMAS), tmp_path / "written")
    assert _form(tmp_path / "written") == _form(older_folder(version, tmp_path / "kept"))


def test_a_refused_load_upgrades_nothing(typing: Terminal) -> None:
    """A load with vectors of another length leaves the folder to the version that wrote it."""
    chroma = older_folder("1.0.20", typing.folder / "chroma")
    before = content_of(chroma)
    done = typing.type("upsert-cli run a.jsonl --collection flushed", expect=4)
    assert "holds vectors of 40 numbers" in done.stderr
    after = content_of(chroma)
    del after[LEASE_NAME], after["."], before["."]
    assert after == before


def test_other_commands_that_upgrade_a_folder_say_so(typing: Terminal) -> None:
    """Deleting a collection opens the folder too."""
    older_folder("0.6.3", typing.folder / "chroma")
    done = typing.type("upsert-cli collections delete kinds --yes")
    assert "older versions cannot open it afterwards" in done.stderr
    assert set(typing.records()) == {f"o{row}" for row in range(ROWS)}


def _change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "chroma.sqlite3", isolation_level=None)) as database:
        database.execute(statement)


READERS = ("verify --collection default", "run a.jsonl --dry-run", "query text")


@pytest.mark.parametrize("kind", ["sysdb", "metadb"])
def test_the_folder_of_a_newer_version_is_named_as_such(typing: Terminal, kind: str) -> None:
    """No command opens a folder with a migration that the installed Chroma has never heard of."""
    typing.type("upsert-cli run a.jsonl")
    chroma = typing.folder / "chroma"
    _change(chroma, f"INSERT INTO migrations VALUES ('{kind}', 99, '00099-any.sqlite.sql', '', '')")  # noqa: S608
    before = (chroma / "chroma.sqlite3").read_bytes()
    for command in (*READERS, "run a.jsonl"):
        assert "a newer version of Chroma" in typing.type(f"upsert-cli {command}", expect=4).stderr
    assert (chroma / "chroma.sqlite3").read_bytes() == before


@pytest.mark.parametrize(
    "statement", ["DROP TABLE collections", "ALTER TABLE collections RENAME dimension TO size", "DROP TABLE migrations"]
)
def test_a_missing_table_is_never_taken_for_nothing(typing: Terminal, statement: str) -> None:
    """A database without a required table or column is damaged, not empty."""
    typing.type("upsert-cli run a.jsonl")
    _change(typing.folder / "chroma", statement)
    for command in (*READERS, "collections", "run a.jsonl"):
        done = typing.type(f"upsert-cli {command}", expect=1)
        assert "cannot be used: no such" in done.stderr
        assert "there is no" not in done.stderr
