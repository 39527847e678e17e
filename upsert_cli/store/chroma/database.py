"""Chroma's SQLite database, read without Chroma, which would wait, crash or miss the damage.

The database has all ids, documents and metadata; only the vectors are in the index files, and can be made again. A
database that an older version wrote is shown with today's tables.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from upsert_cli.errors import TargetBusy, UpsertCliError
from upsert_cli.store.chroma.configuration import info_of
from upsert_cli.store.folder import DATABASE_NAME, os_fault, unusable
from upsert_cli.store.target import CollectionInfo

PROBE_SECONDS = 0.5  # seconds that a foreign writer may take to end a transaction; Chroma itself would wait for 1,000
READ_SECONDS = 1.5  # seconds that a reader waits for a writer to end a transaction
_NEEDS_WRITING = ("SQLITE_READONLY", "SQLITE_CANTOPEN")  # errors of a reader if a transaction has to be undone

KNOWN_MIGRATIONS = {"embeddings_queue": 2, "metadb": 6, "sysdb": 10}
"""The last migration of each kind in Chroma 1.5, which adds those that a folder lacks as soon as it opens it."""

_MIGRATIONS = "SELECT dir, MAX(version) FROM migrations GROUP BY dir"
_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
# Columns that came with a migration, and their values where it is missing.
_LATER_COLUMNS = {
    "collections": {"database_id": "'default'", "config_json_str": "NULL", "schema_str": "NULL"},
    "collection_metadata": {"bool_value": "NULL"},
    "embedding_metadata": {"bool_value": "NULL"},
}
_LATER_TABLES = {
    "databases": "SELECT 'default' AS id, 'default_database' AS name, 'default_tenant' AS tenant_id",
    "embedding_metadata_array": "SELECT NULL AS rowid, NULL AS id, NULL AS key, NULL AS string_value, "
    "NULL AS int_value, NULL AS float_value, NULL AS bool_value WHERE FALSE",
}  # with a `rowid`, since views have none
# Folders of `chroma run` may have other databases, with collections of the same names.
_ENTRIES = (
    "SELECT c.id, c.name, c.dimension, c.config_json_str, c.schema_str, v.id, vm.seq_id, r.id, rm.seq_id "
    "FROM collections c JOIN databases d ON c.database_id = d.id "
    "LEFT JOIN segments v ON v.collection = c.id AND v.scope = 'VECTOR' "
    "LEFT JOIN segments r ON r.collection = c.id AND r.scope = 'METADATA' "
    "LEFT JOIN max_seq_id vm ON vm.segment_id = v.id LEFT JOIN max_seq_id rm ON rm.segment_id = r.id "
    "WHERE d.name = 'default_database' AND d.tenant_id = 'default_tenant' AND c.name = COALESCE(?, c.name) "
    "ORDER BY c.name"
)
_PAIRS = (
    "SELECT key, COALESCE(str_value, int_value, float_value, bool_value) FROM collection_metadata "
    "WHERE collection_id = ?"
)
_COUNT = "SELECT COUNT(*) FROM embeddings WHERE segment_id = ?"


class CollectionEntry(NamedTuple):
    """A collection in the tables of the database."""

    id: str
    name: str
    dimension: int | None
    configuration: str | None
    """JSON, as the schema is."""

    schema: str | None
    vectors: str | None
    """Its vector segment, after which the folder of its index is named."""

    indexed: int | None
    """The last change in the index files; None or 0 if they were never written."""

    records: str | None
    """Its metadata segment: its part of the tables with records."""

    applied: int | None
    """The last change in these tables."""

    @property
    def configurations(self) -> tuple[object, object]:
        """The JSON values in which Chroma stores the settings of the index and the embedding function."""
        return _parsed(self.configuration), _parsed(self.schema)

    @property
    def written_index(self) -> str | None:
        """The folder of the index files, if they were written at least once."""
        return self.vectors if self.indexed else None

    @property
    def is_flushed(self) -> bool | None:
        """Whether the index files hold all records; None if the database has no number of the last change."""
        return None if self.applied is None else (self.indexed or 0) >= self.applied


# -- opening -----------------------------------------------------------------------------------------------------------


@contextmanager
def reading(folder: Path, *, seconds: float = READ_SECONDS) -> Iterator[sqlite3.Connection]:
    """Open the database in one state for several queries; a missing database is empty.

    Raises:
        TargetBusy: Another program keeps the database locked for longer than `seconds`.
        UpsertCliError: The database cannot be read, or lacks a table or a column.
    """
    with _understood(folder), closing(_opened(folder / DATABASE_NAME, seconds=seconds)) as database:
        database.execute("BEGIN")
        yield database


@contextmanager
def writing(folder: Path) -> Iterator[sqlite3.Connection]:
    """Hold a write transaction in a database, which has to exist.

    Raises:
        TargetBusy: Another program holds a write transaction.
        UpsertCliError: The file may not be written, or is not a database.
    """
    with (
        _understood(folder),
        closing(connect(folder / DATABASE_NAME, mode="rw", seconds=PROBE_SECONDS)) as database,
    ):
        database.execute("BEGIN IMMEDIATE")
        yield database
        database.execute("COMMIT")


def connect(path: Path, *, mode: str, seconds: float) -> sqlite3.Connection:
    """Open a database in one of SQLite's modes; `seconds` is how long to wait for another program's lock."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    database = sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None)
    try:
        _show_todays_tables(database)
    except BaseException:
        database.close()
        raise
    return database


def _opened(path: Path, *, seconds: float) -> sqlite3.Connection:
    if not path.exists():
        return sqlite3.connect(":memory:", isolation_level=None)
    try:
        return connect(path, mode="ro", seconds=seconds)
    except sqlite3.Error as error:
        if not error_name(error).startswith(_NEEDS_WRITING):
            raise
    # A killed program left a transaction, which has to be undone before the database can be read.
    return connect(path, mode="rw", seconds=seconds)


def _show_todays_tables(database: sqlite3.Connection) -> None:
    """Put temporary views of today's tables in front of older ones, for this connection alone."""
    if not is_older(applied_migrations(database)):
        return
    tables = {str(name) for (name,) in database.execute(_TABLES)}
    database.execute("PRAGMA temp_store = MEMORY")
    database.create_function("seq_number", 1, _seq_number, deterministic=True)
    for table, query in _LATER_TABLES.items():
        if table not in tables:
            database.execute(f"CREATE TEMP VIEW {table} AS {query}")
    for table, columns in _LATER_COLUMNS.items():
        present = {str(name) for _, name, *_ in database.execute(f"PRAGMA main.table_info({table})")}
        added = [f"{value} AS {name}" for name, value in columns.items() if name not in present]
        if present and added:
            names = f"SELECT *, {', '.join(added)} FROM main.{table}"  # noqa: S608  # all of them are ours
            database.execute(f"CREATE TEMP VIEW {table} AS {names}")
    if "max_seq_id" in tables:
        numbers = "SELECT segment_id, seq_number(seq_id) AS seq_id FROM main.max_seq_id"
        database.execute(f"CREATE TEMP VIEW max_seq_id AS {numbers}")


def _seq_number(value: int | bytes | None) -> int | None:
    """Return a number of the queue, which versions before 1.0 stored as eight bytes."""
    return int.from_bytes(value, "big") if isinstance(value, bytes) else value


@contextmanager
def _understood(folder: Path) -> Iterator[None]:
    """Turn errors of a database into errors with a remedy."""
    try:
        yield
    except sqlite3.Error as error:
        raise _meaning(folder, error) from error
    except OSError as error:
        raise os_fault(folder, error) from error


def _meaning(folder: Path, error: sqlite3.Error) -> UpsertCliError:
    if "locked" in str(error):
        return TargetBusy(path=str(folder))
    if error_name(error).startswith(_NEEDS_WRITING) and (folder / f"{DATABASE_NAME}-journal").exists():
        what = "a program that was killed left a transaction to undo, and this user may not write to the folder"
        remedy = "read it once where it can be written, such as with `upsert-cli collections`, or read a copy of it"
        return unusable(folder / DATABASE_NAME, reason=what, remedy=remedy)
    remedy = "restore it from a backup"
    if error_name(error) == "SQLITE_ERROR":  # there is no such table or column
        remedy = "use the version of chromadb that wrote it, or restore it from a backup"
    elif isinstance(error, sqlite3.OperationalError):
        remedy = "give this user access to it"
    remedy += ", or choose another folder with --chroma"
    return unusable(folder / DATABASE_NAME, reason=str(error), remedy=remedy)


def error_name(error: sqlite3.Error) -> str:
    """Return SQLite's name of an error, such as `SQLITE_BUSY`; empty for an error of Python's, such as bad UTF-8."""
    return getattr(error, "sqlite_errorname", "")


# -- its tables --------------------------------------------------------------------------------------------------------


def applied_migrations(database: sqlite3.Connection) -> dict[str, int]:
    """Return the last migration of each kind that a database has; empty until it has all tables.

    Chroma makes the tables one after the other. After a crash it makes the rest when it opens the database again.
    """
    if database.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
        return {}
    found = {str(kind): int(last) for kind, last in database.execute(_MIGRATIONS)}
    return {} if found.keys() < KNOWN_MIGRATIONS.keys() else found


def is_older(found: Mapping[str, int]) -> bool:
    """Return whether Chroma would upgrade a database by opening it, given its migrations; a new database has none."""
    return bool(found) and any(found.get(kind, 0) < last for kind, last in KNOWN_MIGRATIONS.items())


def find_entry(database: sqlite3.Connection, collection: str) -> CollectionEntry | None:
    """Return the entry of a collection; None if it is missing, or the database does not have all tables yet."""
    return next(_entries(database, collection), None)


def describe(database: sqlite3.Connection, collection: str) -> CollectionInfo | None:
    """Return the description of a collection; None if it is missing."""
    entry = find_entry(database, collection)
    return None if entry is None else _description(database, entry)


def describe_all(database: sqlite3.Connection) -> list[tuple[CollectionInfo, int]]:
    """Return the collections of Chroma's default database by name, each with its number of records."""
    return [(_description(database, entry), count_records(database, entry)) for entry in _entries(database)]


def count_records(database: sqlite3.Connection, entry: CollectionEntry) -> int:
    """Return the number of records that the tables of a collection have."""
    return int(database.execute(_COUNT, (entry.records,)).fetchone()[0])


def _entries(database: sqlite3.Connection, collection: str | None = None) -> Iterator[CollectionEntry]:
    if applied_migrations(database):
        yield from (CollectionEntry(*row) for row in database.execute(_ENTRIES, (collection,)).fetchall())


def _description(database: sqlite3.Connection, entry: CollectionEntry) -> CollectionInfo:
    metadata = dict(database.execute(_PAIRS, (entry.id,)))
    return info_of(entry.name, entry.dimension, metadata, *entry.configurations)


def _parsed(configuration: str | None) -> object:
    with suppress(ValueError):
        return json.loads(configuration or "{}")
    return {}
