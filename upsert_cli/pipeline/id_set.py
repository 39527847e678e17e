"""Sets of ids that may not fit into memory: private databases that spill to the temporary folder.

Such a database uses a few megabytes of memory and disappears with the process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b

from upsert_cli.errors import UpsertCliError

DIGEST_BYTES = 16  # of a digest in place of an id; two of 10 million ids share one in 10^24 tasks


def scratch_database() -> sqlite3.Connection:
    """Open a private database that threads may use one after the other."""
    database = sqlite3.connect("", check_same_thread=False)
    database.execute("PRAGMA journal_mode = OFF")  # it is never rolled back
    return database


@contextmanager
def scratch() -> Iterator[None]:
    """Turn an error of a scratch database into one that the user can act on."""
    try:
        yield
    except sqlite3.Error as error:
        raise UpsertCliError(
            message=f"the temporary folder ($TMPDIR, or else /var/tmp) cannot be used ({error}); make room there or "
            f"set TMPDIR to another folder, then restart the task"
        ) from error


def digest_of(identifier: str) -> bytes:
    """Return a digest that stands for an id and has the same size for all."""
    # JSON can spell text that is not valid Unicode.
    return blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


class IdSet:
    """A set of ids that only grows."""

    def __init__(self) -> None:
        self._database = scratch_database()
        self._database.execute("CREATE TABLE ids (id BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, ids: Iterable[str]) -> None:
        """Add ids; known ids change nothing."""
        with scratch(), self._database:
            self._database.executemany("INSERT OR IGNORE INTO ids VALUES (?)", ((digest_of(each),) for each in ids))

    def __contains__(self, identifier: str) -> bool:
        with scratch():
            found = self._database.execute("SELECT 1 FROM ids WHERE id = ?", (digest_of(identifier),))
            return found.fetchone() is not None

    def close(self) -> None:
        """Discard the ids."""
        self._database.close()
