"""A set of ids that may not fit into memory, in a private database that spills to the temporary folder.

The database uses a few megabytes of memory and disappears with the process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.receipts import digest_of


class IdSet:
    """A growing set of ids, each with the last row that was recorded for it."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False)  # used by one thread after the other
        self._database.execute("PRAGMA journal_mode = OFF")  # it is never rolled back
        self._database.execute("CREATE TABLE ids (id BLOB PRIMARY KEY, source INTEGER, row INTEGER) WITHOUT ROWID")

    def add(self, ids: Iterable[str]) -> int:
        """Add ids, and return the number of those that are new."""
        return self._run("INSERT OR IGNORE INTO ids VALUES (?, -1, 0)", ((digest_of(each),) for each in ids))

    def __contains__(self, identifier: str) -> bool:
        return self._last_row(identifier) is not None

    def record(self, located: Iterable[tuple[str, int, int]]) -> None:
        """Record rows, each an id, the index of its source and its row number; ids outside the set are skipped."""
        rows = ((source, row, digest_of(each)) for each, source, row in located)
        self._run("UPDATE ids SET source = ?, row = ? WHERE id = ?", rows)

    def last(self, identifier: str) -> tuple[int, int]:
        """Return the source and the row number of the last row of an id, or (-1, 0), which precedes every row."""
        return self._last_row(identifier) or (-1, 0)

    def close(self) -> None:
        """Discard the ids."""
        self._database.close()

    def _last_row(self, identifier: str) -> tuple[int, int] | None:
        with _scratch():
            found = self._database.execute("SELECT source, row FROM ids WHERE id = ?", (digest_of(identifier),))
            row: tuple[int, int] | None = found.fetchone()
            return row

    def _run(self, statement: str, rows: Iterable[tuple[object, ...]]) -> int:
        with _scratch(), self._database:
            return self._database.executemany(statement, rows).rowcount


@contextmanager
def _scratch() -> Iterator[None]:
    """Turn an error of the database into an error with a remedy."""
    try:
        yield
    except sqlite3.Error as error:
        raise UpsertCliError(
            message=f"the temporary folder ($TMPDIR, or else /var/tmp) cannot be used ({error}); make room there or "
            f"set TMPDIR to another folder, then restart the task"
        ) from error
