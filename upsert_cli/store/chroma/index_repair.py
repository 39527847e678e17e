"""Repair by sqlite and renames, without Chroma: an unreadable index is put aside, so that Chroma opens the rest.

Ids, documents and metadata are in Chroma's database; only the vectors are in the index files, and can be made again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from upsert_cli.errors import TargetInUse
from upsert_cli.locks import Holder, LeaseHeld
from upsert_cli.store.chroma.database import DATABASE_NAME, PROBE_SECONDS
from upsert_cli.store.folder import LEASE_NAME, os_fault, unusable
from upsert_cli.store.leasing import take_lease

# Values that the engine can read from its queue in one statement: six variables each, of 32,766 that sqlite allows.
QUEUE_KEYS = 5_460
QUEUE_REMOVED = 32_766

_PENDING = (
    "SELECT q.seq_id, q.id, q.metadata FROM embeddings_queue q "
    "JOIN collections c ON q.topic LIKE '%/' || c.id "
    "JOIN segments s ON s.collection = c.id AND s.scope = 'METADATA' "
    "LEFT JOIN max_seq_id m ON m.segment_id = s.id "
    "WHERE c.name = ? AND q.seq_id > COALESCE(m.seq_id, 0)"
)
_SEGMENTS = (
    "SELECT s.id FROM segments s JOIN collections c ON s.collection = c.id WHERE c.name = ? AND s.scope = 'VECTOR'"
)


def take_poison(folder: Path, collection: str, require_alone: Callable[[], None]) -> list[str]:
    """Remove the rows from the collection's queue that the engine can never apply, and return their ids.

    Such a row was never stored, so everything that the collection lists stays. `require_alone` checks that no other
    program has the files open.
    """
    with _alone(folder, require_alone), _database(folder) as database:
        poison = [
            (number, str(identifier))
            for number, identifier, metadata in database.execute(_PENDING, (collection,))
            if _is_poison(metadata)
        ]
        database.executemany("DELETE FROM embeddings_queue WHERE seq_id = ?", [(number,) for number, _ in poison])
    return [identifier for _, identifier in poison]


def put_index_aside(folder: Path, collection: str, require_alone: Callable[[], None]) -> list[str]:
    """Rename the folders of the collection's index, and return their new names; nothing is deleted.

    `require_alone` checks that no other program has the files open.
    """
    moved: list[str] = []
    with _alone(folder, require_alone), _database(folder) as database:
        for (segment,) in database.execute(_SEGMENTS, (collection,)).fetchall():
            index = folder / str(segment)
            aside = index.with_name(f"{index.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
            if index.exists():
                index.rename(aside)
                moved.append(aside.name)
            # Like an index that was never flushed: what is still queued is read again, and its files are not missed.
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


@contextmanager
def _alone(folder: Path, require_alone: Callable[[], None]) -> Iterator[None]:
    """Hold the folder's lease, and tell the next writer to check closely."""
    try:
        lease = take_lease(folder / LEASE_NAME, Holder.this_process(), given_up=os.getpid())
    except LeaseHeld as error:
        raise TargetInUse(path=str(folder), holder=str(error.holder)) from error
    except OSError as error:
        raise os_fault(folder, error) from error
    try:
        lease.write(replace(Holder.this_process(), owed=lease.before.owed if lease.before else {}))
        require_alone()
        yield
    finally:
        lease.release()


@contextmanager
def _database(folder: Path) -> Iterator[sqlite3.Connection]:
    path = folder / DATABASE_NAME
    try:
        with closing(sqlite3.connect(path, timeout=PROBE_SECONDS)) as database, database:
            yield database
    except sqlite3.Error as error:
        remedy = "restore it from a backup, or load it again into another --collection"
        raise unusable(path, reason=str(error), remedy=remedy) from error
    except OSError as error:
        raise os_fault(path, error) from error
