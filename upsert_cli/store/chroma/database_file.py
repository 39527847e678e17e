"""The file of Chroma's database, opened with sqlite3; an older one shows today's tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from upsert_cli.errors import TargetBusy, UpsertCliError
from upsert_cli.store.chroma import migrations
from upsert_cli.store.folder import DATABASE_NAME, os_fault, unusable

PROBE_SECONDS = 0.5  # seconds that a foreign writer may take to end a transaction; Chroma itself would wait for 1,000
READ_SECONDS = 1.5  # seconds that a reader waits for a writer to end a transaction
_NEEDS_WRITING = ("SQLITE_READONLY", "SQLITE_CANTOPEN")  # errors if a transaction has to be undone


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


def read(folder: Path, query: str, *values: str | int) -> list[tuple[Any, ...]]:
    """Return the rows of a query.

    Raises:
        TargetBusy: Another program keeps the database locked.
        UpsertCliError: It cannot be read, or lacks a table or a column.
    """
    try:
        return _read(folder / DATABASE_NAME, query, *values)
    except sqlite3.Error as error:
        raise meaning(folder, error) from error


def read_if_made(folder: Path, query: str, *values: str | int) -> list[tuple[Any, ...]]:
    """Return the rows of a query; none if there is no database yet, or Chroma has just begun to make its tables.

    Raises:
        TargetBusy: Another program keeps the database locked.
        UpsertCliError: It cannot be read, or lacks a table or a column.
    """
    if not (folder / DATABASE_NAME).exists():
        return []
    try:
        return _read(folder / DATABASE_NAME, query, *values)
    except sqlite3.Error as error:
        if error_name(error) == "SQLITE_ERROR" and not applied_migrations(folder).get("sysdb"):
            return []
        raise meaning(folder, error) from error


def applied_migrations(folder: Path) -> dict[str, int]:
    """Return the last migration of each kind that a folder has; empty if it has no database, or one without tables.

    Raises:
        TargetBusy: Another program keeps the database locked.
        UpsertCliError: It cannot be read, or is not Chroma's.
    """
    if not (folder / DATABASE_NAME).exists():
        return {}
    is_blank = not read(folder, "SELECT 1 FROM sqlite_master LIMIT 1")
    return {} if is_blank else {str(kind): int(last) for kind, last in read(folder, migrations.APPLIED)}


def _read(path: Path, query: str, *values: str | int, mode: str = "ro") -> list[tuple[Any, ...]]:
    try:
        with closing(connect(path, mode=mode, seconds=READ_SECONDS)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        if mode == "rw" or not error_name(error).startswith(_NEEDS_WRITING):
            raise
    # A program that was killed left a transaction, which has to be undone before anything can be read.
    return _read(path, query, *values, mode="rw")


def connect(path: Path, *, mode: str, seconds: float) -> sqlite3.Connection:
    """Open a database in one of SQLite's modes; `seconds` is how long to wait for another program's lock."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None)
    try:
        migrations.show_as_todays(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def error_name(error: sqlite3.Error) -> str:
    """Return SQLite's name of an error, such as `SQLITE_BUSY`; empty for an error of Python's, such as bad UTF-8."""
    return getattr(error, "sqlite_errorname", "")


def meaning(folder: Path, error: sqlite3.Error) -> UpsertCliError:
    """Return the error that tells a user what to do about a database that does not open."""
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
