"""Rescue: a folder that today's Chroma cannot open, or would change, is a source whose records are all there."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.older_chroma import ROWS, VERSIONS, content_of, older_folder
from tests.support.other_program import (
    as_written,
    floats_rounded,
    plain_chroma,
    some_records,
    without_hash,
    write_records,
)
from tests.support.terminal import Terminal
from upsert_cli.documents.hashing import HASH_KEY
from upsert_cli.store.chroma.tables import RecordTables

# A number that is not finite blocks the queue for good, so that every later change stays in it.
BLOCKED = """
import math
collection = client.get_collection("docs", embedding_function=None)
vector = [1.0, 2.0, 3.0]


def attempt(change, **values):
    try:
        change(**values)
    except Exception as error:
        assert "compaction" in str(error)


attempt(collection.upsert, ids=["blocks"], embeddings=[vector], documents=["blocks"], metadatas=[{"f": [1.0, math.nan]}])
attempt(collection.upsert, ids=["late"], embeddings=[vector], documents=["late"], metadatas=[{"n": 1, "l": ["x"]}])
two = {"embeddings": [vector, vector], "documents": ["later", "never"], "metadatas": [{"n": 2}, {"n": 3}]}
attempt(collection.update, ids=["late", "never"], **two)
attempt(collection.update, ids=["doc 1"], metadatas=[{"number": 99, "source": None}])
attempt(collection.add, ids=["doc 3"], embeddings=[vector], documents=["ignored"])
"""
# Chroma asks the blocked collection before it queues a deletion, but another process may have asked earlier.
DELETION = (
    "INSERT INTO embeddings_queue (operation, topic, id, metadata) "
    "SELECT 3, topic, 'doc 2', '{}' FROM embeddings_queue ORDER BY seq_id DESC LIMIT 1"
)


@pytest.fixture
def blocked(tiny: Terminal) -> Terminal:
    """Return a terminal with a folder `old` whose collection `docs` has changes that Chroma can never apply."""
    write_records(tiny, some_records(5))
    plain_chroma(tiny, BLOCKED, folder="old")
    with closing(sqlite3.connect(tiny.folder / "old" / "chroma.sqlite3", isolation_level=None)) as database:
        database.execute(DELETION)
    return tiny


@pytest.mark.parametrize("version", VERSIONS)
def test_an_older_folder_is_a_source(tiny: Terminal, version: str) -> None:
    """Ids, documents and metadata come from its tables, with their types, and no byte of the folder changes."""
    before = content_of(older_folder(version, tiny.folder / "old"))
    tiny.type("upsert-cli run chroma:old#default --task-id all")
    assert {one: record["document"] for one, record in tiny.records().items()} == {
        f"o{row}": f"text {row}" for row in range(ROWS)
    }
    tiny.type("upsert-cli run chroma:old#kinds --collection kinds --task-id kinds", expect=3)
    assert [one["object_id"] for one in tiny.info("kinds")["failed_items"]] == ["ü d"]
    found = tiny.records("kinds").items()
    own = {one: {key: value for key, value in record["metadata"].items() if key != HASH_KEY} for one, record in found}
    assert own == {
        "a": {"s": "changed", "new": 3, "i": 7, "f": 1.5, "yes": True, "no": False, "big": 2**62, "tiny": 1e-300},
        "b": {},
        "c": {},
    }
    assert {one: record["document"] for one, record in found} == {"a": "one", "b": "again", "c": "three"}
    assert content_of(tiny.folder / "old") == before


@pytest.mark.parametrize("version", ["0.4.24", "1.0.20"])
def test_vectors_of_an_older_folder_come_from_a_copy(tiny: Terminal, version: str) -> None:
    """With --keep-vectors, a copy of the folder is upgraded and read, and the folder stays unchanged."""
    before = content_of(older_folder(version, tiny.folder / "old"))
    tiny.type("upsert-cli run chroma:old#kinds --keep-vectors --collection kinds")
    found = tiny.records("kinds", vectors=True)
    assert found.keys() == {"a", "b", "c", "ü d"}
    had = np.asarray(found["ü d"]["vector"])
    wanted = np.full(3, 0.25)
    assert had / np.linalg.norm(had) == pytest.approx(wanted / np.linalg.norm(wanted))
    assert content_of(tiny.folder / "old") == before


def _damage(folder: Path) -> None:
    for path in folder.glob("*/data_level0.bin"):
        path.write_bytes(path.read_bytes()[:100])


def test_a_damaged_index_costs_vectors_and_no_records(tiny: Terminal) -> None:
    """The documents are embedded; only --keep-vectors needs the index, and names the damage."""
    records = some_records(1_100)  # more than Chroma keeps in its queue
    write_records(tiny, records)
    _damage(tiny.folder / "old")
    before = content_of(tiny.folder / "old")
    tiny.type("upsert-cli run chroma:old#docs --collection docs")
    assert floats_rounded(without_hash(tiny.records("docs"))) == floats_rounded(as_written(records))
    assert content_of(tiny.folder / "old") == before
    said = tiny.type("upsert-cli run chroma:old#docs --keep-vectors --collection kept", expect=1)
    assert "is damaged" in said.stderr


def test_a_damaged_part_of_the_database_costs_the_records_in_it(tiny: Terminal) -> None:
    """The records in the damaged part are rejected by name, and all others are loaded."""
    records = some_records(1_100)
    write_records(tiny, records)
    path = tiny.folder / "old" / "chroma.sqlite3"
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[16:18], "big")  # bytes of a page
    for found in re.finditer(rb"first document number 555", bytes(content)):  # any byte may be next to it in the file
        start = found.start() // size * size
        content[start : start + 8] = b"\xff" * 8  # the header of a page that has the document
    path.write_bytes(content)
    tiny.type("upsert-cli run chroma:old#docs --collection docs --task-id one", expect=3)
    counts = tiny.info("one")["counts"]
    failed = tiny.info("one")["failed_items"]
    assert "doc 555" in [one["object_id"] for one in failed]
    assert all("damaged part of chroma.sqlite3" in one["detail"] for one in failed)
    assert (counts["read"], counts["failed"]) == (len(records), len(failed))
    lost = {one["object_id"] for one in failed}
    stored = without_hash(tiny.records("docs"))
    assert floats_rounded(stored) == floats_rounded(as_written([one for one in records if one["id"] not in lost]))


_SPOILED = {
    "document": "UPDATE embedding_metadata SET string_value = CAST(x'61ff62' AS TEXT) WHERE key = 'chroma:document' AND id = ?",
    "metadata": "UPDATE embedding_metadata SET string_value = CAST(x'61ff62' AS TEXT) WHERE key = 'source' AND id = ?",
    "key": "UPDATE embedding_metadata SET key = CAST(x'61ff62' AS TEXT) WHERE key = 'source' AND id = ?",
    "list": "UPDATE embedding_metadata_array SET string_value = CAST(x'61ff62' AS TEXT) WHERE key = 'tags' AND id = ?",
    "id": "UPDATE embeddings SET embedding_id = CAST(x'646f6320ff' AS TEXT) WHERE id = ?",
}


@pytest.mark.parametrize("part", _SPOILED)
def test_a_damaged_byte_of_text_costs_one_record(tiny: Terminal, part: str) -> None:
    """A text in the tables that is no longer UTF-8 rejects only its own record, by name."""
    records = some_records(20)
    write_records(tiny, records)
    with closing(sqlite3.connect(tiny.folder / "old" / "chroma.sqlite3")) as database, database:
        [number] = database.execute("SELECT id FROM embeddings WHERE embedding_id = 'doc 7'").fetchone()
        assert database.execute(_SPOILED[part], (number,)).rowcount > 0
    tiny.type("upsert-cli run chroma:old#docs --collection docs --task-id one", expect=3)
    [failed] = tiny.info("one")["failed_items"]
    assert failed["object_id"] == ("doc \\xff" if part == "id" else "doc 7")
    assert "damaged part of chroma.sqlite3" in failed["detail"]
    others = [one for one in records if one["id"] != "doc 7"]
    assert floats_rounded(without_hash(tiny.records("docs"))) == floats_rounded(as_written(others))


# The same name in a database and in a tenant of their own, as `chroma run` may leave them in a folder.
_OTHER_DATABASES = """
from chromadb.config import Settings
settings = Settings(is_persistent=True, persist_directory="old")
admin = chromadb.AdminClient(settings)
admin.create_tenant("theirs")
for tenant in ("default_tenant", "theirs"):
    admin.create_database("second", tenant)
    client = chromadb.PersistentClient("old", settings, tenant, "second")
    for name in ("docs", f"only-{tenant}"):
        collection = client.create_collection(name, embedding_function=None)
        collection.add(ids=["other"], documents=["other"], embeddings=[[1.0, 2.0]], metadatas=[{"object_id": "a"}])
"""


def test_other_databases_of_a_folder_are_left_alone(tiny: Terminal) -> None:
    """A collection of the same name in another database or tenant is neither read, listed, exported nor renamed."""
    records = some_records(5)
    write_records(tiny, records)
    plain_chroma(tiny, _OTHER_DATABASES, folder="old")
    for options in ("", "--keep-vectors", """--where '{"even": {"$in": [true, false]}}'"""):
        name = f"copy{len(options)}"
        tiny.type(f"upsert-cli run chroma:old#docs {options} --collection {name}")
        assert tiny.records(name).keys() == {one["id"] for one in records}
    assert "there is no collection" in tiny.type("upsert-cli run chroma:old#only-theirs", expect=2).stderr
    tiny.type("upsert-cli collections rename docs only-theirs --chroma old")
    listed = tiny.type("upsert-cli collections --chroma old").stdout.splitlines()[1:]
    assert [line.split("\t")[:2] for line in listed] == [["only-theirs", "5"]]
    with closing(sqlite3.connect(tiny.folder / "old" / "chroma.sqlite3")) as database:
        names = sorted(name for (name,) in database.execute("SELECT name FROM collections"))
    assert names == ["docs", "docs", "only-default_tenant", "only-theirs", "only-theirs"]


def test_queued_changes_are_read(blocked: Terminal) -> None:
    """Changes after a row that blocks the queue count as if they had been applied; that row is rejected by name."""
    tiny = blocked
    before = content_of(tiny.folder / "old")
    tiny.type("upsert-cli run chroma:old#docs --collection docs --task-id one", expect=3)
    stored = without_hash(tiny.records("docs"))
    assert list(stored) == ["doc 0", "doc 1", "doc 3", "doc 4", "late"]
    assert stored["late"] == ("later", {"n": 2, "l": ["x"]})
    assert [one["object_id"] for one in tiny.info("one")["failed_items"]] == ["blocks"]
    changed = stored["doc 1"][1]
    assert (changed["number"], "source" in changed) == (99, False)
    assert stored["doc 3"] == as_written(some_records(5))["doc 3"]
    assert tiny.info("one")["progress"] == {"rows": 6, "total": 6}
    assert content_of(tiny.folder / "old") == before


def test_a_position_among_queued_changes_is_found_again(blocked: Terminal) -> None:
    """A position after any record leads to the next one, in the tables and in the queue."""
    tables = RecordTables.find(blocked.folder / "old", "docs")
    assert tables is not None
    read: list[Any] = []
    while page := tables.after(read[-1].number if read else 0, rows=1):
        read += page
    assert [one.id for one in read] == ["doc 0", "doc 1", "doc 3", "doc 4", "blocks", "late"]
    assert tables.state.records == len(read)
    assert tables.state.changes < 0  # unlike any state in which nothing is queued, since the positions change with it
    ends = [*tables.boundaries(rows=4)]
    assert ends == [(count, read[count - 1].number) for count in (3, 4, 6)]
