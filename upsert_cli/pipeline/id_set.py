"""Sets of ids that may be larger than the memory: in private databases that spill to the temporary folder.

Such a database has a few megabytes of memory, belongs to nobody else, and vanishes with the process.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b

from upsert_cli.errors import ScratchUnusable

ID_BYTES = 16  # of a digest that stands for an id; two ids of 10 million are alike once in 10^24 tasks


def scratch_database() -> sqlite3.Connection:
    """Opens a database that may be used by one thread after another, such as one that reads and one that collects."""
    database = sqlite3.connect("", check_same_thread=False)
    database.execute("PRAGMA journal_mode = OFF")  # nobody will ever roll it back
    return database


@contextmanager
def scratch() -> Iterator[None]:
    """Turns what sqlite says of such a database into an error that a user can act on."""
    try:
        yield
    except sqlite3.Error as error:
        raise ScratchUnusable(reason=str(error)) from error


def digest_of(identifier: str) -> bytes:
    """Returns what stands for an id, of the same few bytes however long that is."""
    # JSON can spell text that is no valid Unicode.
    return blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=ID_BYTES).digest()


class IdSet:
    """A set of ids that can only grow."""

    def __init__(self) -> None:
        """Is empty."""
        self._database = scratch_database()
        self._database.execute("CREATE TABLE ids (id BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, ids: Iterable[str]) -> None:
        """Adds ids; those that are there already change nothing."""
        with scratch(), self._database:
            self._database.executemany("INSERT OR IGNORE INTO ids VALUES (?)", ((digest_of(each),) for each in ids))

    def __contains__(self, identifier: str) -> bool:
        with scratch():
            found = self._database.execute("SELECT 1 FROM ids WHERE id = ?", (digest_of(identifier),))
            return found.fetchone() is not None

    def close(self) -> None:
        """Forgets all of them."""
        self._database.close()
