"""Chroma's database, read and repaired with sqlite3 where Chroma itself would wait, crash or say nothing.

Ids, documents and metadata are in it; only the vectors are in the index files, and can be made again.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from upsert_cli.errors import TargetBusy, UpsertCliError
from upsert_cli.store.base import CollectionInfo
from upsert_cli.store.chroma.stamp import info_of
from upsert_cli.store.folder import DATABASE_NAME, os_fault, unusable

PROBE_SECONDS = 0.5  # seconds that a foreign writer may take to end a transaction; Chroma itself would wait for 1,000
READ_SECONDS = 1.5  # seconds that a reader waits for a writer to end a transaction
# Values that the engine can read from its queue in one statement: six variables each, of 32,766 that sqlite allows.
QUEUE_KEYS = 5_460
QUEUE_REMOVED = 32_766
_NEEDS_WRITING = ("SQLITE_READONLY", "SQLITE_CANTOPEN")  # errors if a transaction has to be undone

_PAIRS = "SELECT key, COALESCE(str_value, int_value, float_value, bool_value)"
_LISTED = (
    "SELECT c.id, c.name, c.dimension, (SELECT COUNT(*) FROM embeddings e JOIN segments s ON e.segment_id = s.id "
    "WHERE s.collection = c.id AND s.scope = 'METADATA'), c.config_json_str, c.schema_str FROM collections c "
    "JOIN databases d ON c.database_id = d.id WHERE d.name = 'default_database' AND d.tenant_id = 'default_tenant' "
    "ORDER BY c.name"
)
_FLUSHED = (
    "SELECT s.id FROM segments s JOIN collections c ON s.collection = c.id JOIN max_seq_id m ON m.segment_id = s.id "
    "WHERE c.name = ? AND s.scope = 'VECTOR' AND m.seq_id > 0"
)
_SEGMENT_PAIRS = (
    "SELECT v.id, m.id, vm.seq_id FROM collections c JOIN segments v ON v.collection = c.id AND v.scope = 'VECTOR' "
    "JOIN segments m ON m.collection = c.id AND m.scope = 'METADATA' JOIN max_seq_id vm ON vm.segment_id = v.id "
    "JOIN max_seq_id mm ON mm.segment_id = m.id WHERE c.name = ? AND vm.seq_id BETWEEN 1 AND mm.seq_id"
)
_QUEUED = (
    "SELECT c.config_json_str, c.schema_str, (SELECT COUNT(*) FROM embeddings_queue q "
    "WHERE q.topic LIKE '%/' || c.id AND q.seq_id > COALESCE(m.seq_id, 0)) FROM collections c "
    "JOIN segments s ON s.collection = c.id AND s.scope = 'VECTOR' LEFT JOIN max_seq_id m ON m.segment_id = s.id "
    "WHERE c.name = ?"
)
_REACHED = (
    "SELECT s.scope, m.seq_id FROM collections c JOIN segments s ON s.collection = c.id "
    "JOIN max_seq_id m ON m.segment_id = s.id WHERE c.name = ?"
)
_PENDING = (
    "SELECT q.seq_id, q.id, q.metadata FROM embeddings_queue q JOIN collections c ON q.topic LIKE '%/' || c.id "
    "JOIN segments s ON s.collection = c.id AND s.scope = 'METADATA' LEFT JOIN max_seq_id m ON m.segment_id = s.id "
    "WHERE c.name = ? AND q.seq_id > COALESCE(m.seq_id, 0)"
)
_SEGMENTS = (
    "SELECT s.id FROM segments s JOIN collections c ON s.collection = c.id WHERE c.name = ? AND s.scope = 'VECTOR'"
)


def flushed_segments(folder: Path, collection: str) -> list[str]:
    """Return the vector segments of a collection whose index files were written at least once."""
    return [str(segment) for (segment,) in _ask(folder, _FLUSHED, collection)]


def indexed_ids(folder: Path, collection: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each vector segment of a collection, with the ids of the records that its index files must have.

    These are the records that did not change after the files were written. The files may have others too. Where the
    records' own tables are behind the files, nothing is known: a missing row may have been deleted.
    """
    query = "SELECT embedding_id FROM embeddings WHERE segment_id = ? AND seq_id <= ?"
    for vectors, records, reached in _ask(folder, _SEGMENT_PAIRS, collection):
        yield str(vectors), {str(one) for (one,) in _ask(folder, query, records, reached)}


def is_flushed(folder: Path, collection: str) -> bool | None:
    """Tell whether the index files hold all records; None if the database is locked or does not tell."""
    with suppress(UpsertCliError):  # it is locked, or cannot be read
        reached: dict[str, int] = dict(_ask(folder, _REACHED, collection))
        if "METADATA" in reached:
            return reached.get("VECTOR", 0) >= reached["METADATA"]
    return None


def reading_flushes(folder: Path, collection: str) -> bool:
    """Tell whether merely reading a collection would write its index files, since too much is queued for them."""
    return any(
        queued >= min((value for text in configurations for value in _stored(text, "sync_threshold")), default=0)
        for *configurations, queued in _ask(folder, _QUEUED, collection)
    )


def describe(folder: Path, collection: str) -> CollectionInfo | None:
    """Return the description of a collection; None if the database has none of that name."""
    rows = _ask(folder, "SELECT id, dimension, config_json_str, schema_str FROM collections WHERE name = ?", collection)
    if not rows:
        return None
    identity, dimension, *configurations = rows[0]
    pairs = _ask(folder, f"{_PAIRS} FROM collection_metadata WHERE collection_id = ?", identity)
    return info_of(collection, dimension, dict(pairs), *map(_parsed, configurations))


def list_collections(folder: Path) -> list[tuple[CollectionInfo, int]]:
    """Return the collections of Chroma's default database in a folder by name, each with its number of records.

    Raises:
        TargetBusy: Another program keeps the database locked.
        UpsertCliError: There is no Chroma in the folder, or its database cannot be read.
    """
    path = folder / DATABASE_NAME
    if not path.is_file():
        raise UpsertCliError(
            message=f"there is no Chroma in {folder}; --chroma names another folder, `upsert-cli run` makes one"
        )
    try:
        rows = _read(path, _LISTED)
        pairs = _read(path, f"{_PAIRS}, collection_id FROM collection_metadata")
    except sqlite3.Error as error:
        if error.sqlite_errorname != "SQLITE_ERROR":
            raise meaning(folder, error) from error
        remedy = "use the version of chromadb that wrote it, or restore it from a backup"
        raise unusable(path, reason=str(error), remedy=remedy) from error
    found = []
    for identity, name, dimension, records, *configurations in rows:
        metadata = {key: value for key, value, owner in pairs if owner == identity}
        found.append((info_of(str(name), dimension, metadata, *map(_parsed, configurations)), int(records)))
    return found


def _parsed(configuration: str | None) -> object:
    with suppress(ValueError):
        return json.loads(configuration or "{}")
    return {}


def _stored(configuration: str | None, key: str) -> list[Any]:
    """Return the values of a key in a stored configuration, at any depth."""
    found: list[Any] = []

    def look(value: dict[str, Any]) -> dict[str, Any]:
        if key in value:
            found.append(value[key])
        return value

    with suppress(ValueError):
        json.loads(configuration or "{}", object_hook=look)
    return found


# -- repair ------------------------------------------------------------------------------------------------------------


def take_poison(folder: Path, collection: str) -> list[str]:
    """Remove the rows from the collection's queue that the engine can never apply, and return their ids.

    Such a row was never stored, so everything that the collection lists stays. Nobody else may have the files open.
    """
    with writing(folder) as database:
        pending = database.execute(_PENDING, (collection,)).fetchall()
        poison = [(number, str(one)) for number, one, metadata in pending if _is_poison(metadata)]
        database.executemany("DELETE FROM embeddings_queue WHERE seq_id = ?", [(number,) for number, _ in poison])
    return [one for _, one in poison]


def put_index_aside(folder: Path, collection: str) -> list[str]:
    """Rename the folders of the collection's index, and return their new names; nothing is deleted.

    Nobody else may have the files open.
    """
    moved: list[str] = []
    with writing(folder) as database:
        for (segment,) in database.execute(_SEGMENTS, (collection,)).fetchall():
            index = folder / str(segment)
            aside = index.with_name(f"{index.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
            if index.exists():
                index.rename(aside)
                moved.append(aside.name)
            # Like an index that was never flushed: queued rows are read again, and its files are not missed.
            database.execute("DELETE FROM max_seq_id WHERE segment_id = ?", (segment,))
    return moved


def _is_poison(metadata: str | None) -> bool:
    values = json.loads(metadata) if metadata else None
    if not isinstance(values, dict):
        return False
    lists = [value for value in values.values() if isinstance(value, list)]
    removed = sum(value is None for value in values.values())
    return (
        any(part is None for value in lists for part in value)  # how the queue stores a number that is not finite
        or len(values) - removed > QUEUE_KEYS
        or sum(map(len, lists)) > QUEUE_KEYS
        or removed > QUEUE_REMOVED
    )


# -- access ------------------------------------------------------------------------------------------------------------


@contextmanager
def writing(folder: Path) -> Iterator[sqlite3.Connection]:
    """Hold a write transaction; the database has to exist.

    Raises:
        TargetBusy: Another program holds one.
        UpsertCliError: The file may not be written, or is not a database.
    """
    try:
        with closing(connect(folder / DATABASE_NAME, mode="rw", seconds=PROBE_SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
    except sqlite3.Error as error:
        raise meaning(folder, error) from error
    except OSError as error:
        raise os_fault(folder, error) from error


def _ask(folder: Path, query: str, *values: str | int) -> list[tuple[Any, ...]]:
    """Return the rows of a query; none if the database is missing, or a version of Chroma with other tables wrote it.

    Raises:
        TargetBusy: Another program keeps it locked.
        UpsertCliError: It cannot be read.
    """
    path = folder / DATABASE_NAME
    if not path.exists():
        return []
    try:
        return _read(path, query, *values)
    except sqlite3.Error as error:
        if error.sqlite_errorname == "SQLITE_ERROR":  # there is no such table or column
            return []
        raise meaning(folder, error) from error


def _read(path: Path, query: str, *values: str | int, mode: str = "ro") -> list[tuple[Any, ...]]:
    try:
        with closing(connect(path, mode=mode, seconds=READ_SECONDS)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        if mode == "rw" or not error.sqlite_errorname.startswith(_NEEDS_WRITING):
            raise
    # A program that was killed left a transaction, which has to be undone before anything can be read.
    return _read(path, query, *values, mode="rw")


def connect(path: Path, *, mode: str, seconds: float) -> sqlite3.Connection:
    """Open a database in a mode of SQLite's, and wait that long for locks."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None)


def meaning(folder: Path, error: sqlite3.Error) -> UpsertCliError:
    """Return the error that tells a user what to do about a database that does not open."""
    if "locked" in str(error):
        return TargetBusy(path=str(folder))
    if error.sqlite_errorname.startswith(_NEEDS_WRITING) and (folder / f"{DATABASE_NAME}-journal").exists():
        what = "a program that was killed left a transaction to undo, and this user may not write to the folder"
        remedy = "read it once where it can be written, such as with `upsert-cli collections`, or read a copy of it"
        return unusable(folder / DATABASE_NAME, reason=what, remedy=remedy)
    remedy = "restore it from a backup"
    if isinstance(error, sqlite3.OperationalError):
        remedy = "give this user access to it"
    remedy += ", or choose another folder with --chroma"
    return unusable(folder / DATABASE_NAME, reason=str(error), remedy=remedy)
