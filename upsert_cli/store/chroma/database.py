"""Chroma's database, read and repaired with sqlite3 where Chroma itself would wait, crash or say nothing.

Ids, documents and metadata are in it; only the vectors are in the index files, and can be made again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from upsert_cli.errors import UpsertCliError
from upsert_cli.store.base import CollectionInfo
from upsert_cli.store.chroma.database_file import read, read_if_made, writing
from upsert_cli.store.chroma.migrations import rewrite_queue
from upsert_cli.store.chroma.stamp import info_of
from upsert_cli.store.folder import DATABASE_NAME

# Values that the engine can read from its queue in one statement: six variables each, of 32,766 that sqlite allows.
QUEUE_KEYS = 5_460
QUEUE_REMOVED = 32_766

_PAIRS = "SELECT key, COALESCE(str_value, int_value, float_value, bool_value)"
_LISTED = (
    "SELECT c.id, c.name, c.dimension, (SELECT COUNT(*) FROM embeddings e JOIN segments s ON e.segment_id = s.id "
    "WHERE s.collection = c.id AND s.scope = 'METADATA'), c.config_json_str, c.schema_str FROM collections c "
    "JOIN databases d ON c.database_id = d.id WHERE d.name = 'default_database' AND d.tenant_id = 'default_tenant' "
    "ORDER BY c.name"
)
# Folders of `chroma run` may have other databases, with collections of the same names. (Only this is put into queries.)
# ruff: noqa: S608
_DEFAULT = (
    "(SELECT c.* FROM collections c JOIN databases d ON c.database_id = d.id "
    "WHERE d.name = 'default_database' AND d.tenant_id = 'default_tenant')"
)
_DESCRIBED = f"SELECT id, dimension, config_json_str, schema_str FROM {_DEFAULT} c WHERE c.name = ?"
_FLUSHED = (
    f"SELECT s.id FROM segments s JOIN {_DEFAULT} c ON s.collection = c.id JOIN max_seq_id m ON m.segment_id = s.id "
    "WHERE c.name = ? AND s.scope = 'VECTOR' AND m.seq_id > 0"
)
_SEGMENT_PAIRS = (
    f"SELECT v.id, m.id, vm.seq_id FROM {_DEFAULT} c JOIN segments v ON v.collection = c.id AND v.scope = 'VECTOR' "
    "JOIN segments m ON m.collection = c.id AND m.scope = 'METADATA' JOIN max_seq_id vm ON vm.segment_id = v.id "
    "JOIN max_seq_id mm ON mm.segment_id = m.id WHERE c.name = ? AND vm.seq_id BETWEEN 1 AND mm.seq_id"
)
_QUEUED = (
    "SELECT c.config_json_str, c.schema_str, (SELECT COUNT(*) FROM embeddings_queue q "
    f"WHERE q.topic LIKE '%/' || c.id AND q.seq_id > COALESCE(m.seq_id, 0)) FROM {_DEFAULT} c "
    "JOIN segments s ON s.collection = c.id AND s.scope = 'VECTOR' LEFT JOIN max_seq_id m ON m.segment_id = s.id "
    "WHERE c.name = ?"
)
_REACHED = (
    f"SELECT s.scope, m.seq_id FROM {_DEFAULT} c JOIN segments s ON s.collection = c.id "
    "JOIN max_seq_id m ON m.segment_id = s.id WHERE c.name = ?"
)
_PENDING = (
    f"SELECT q.seq_id, q.id, q.metadata FROM embeddings_queue q JOIN {_DEFAULT} c ON q.topic LIKE '%/' || c.id "
    "JOIN segments s ON s.collection = c.id AND s.scope = 'METADATA' LEFT JOIN max_seq_id m ON m.segment_id = s.id "
    "WHERE c.name = ? AND q.seq_id > COALESCE(m.seq_id, 0)"
)
_SEGMENTS = (
    f"SELECT s.id FROM segments s JOIN {_DEFAULT} c ON s.collection = c.id WHERE c.name = ? AND s.scope = 'VECTOR'"
)


def flushed_segments(folder: Path, collection: str) -> list[str]:
    """Return the vector segments of a collection whose index files were written at least once."""
    return [str(segment) for (segment,) in read_if_made(folder, _FLUSHED, collection)]


def vector_segments(folder: Path, collection: str) -> list[str]:
    """Return the vector segments of a collection, with index files or without."""
    return [str(segment) for (segment,) in read_if_made(folder, _SEGMENTS, collection)]


def indexed_ids(folder: Path, collection: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each vector segment of a collection, with the ids of the records that its index files must have.

    These are the records that did not change after the files were written. The files may have others too. Where the
    records' own tables are behind the files, nothing is known: a missing row may have been deleted.
    """
    query = "SELECT embedding_id FROM embeddings WHERE segment_id = ? AND seq_id <= ?"
    for vectors, records, reached in read_if_made(folder, _SEGMENT_PAIRS, collection):
        yield str(vectors), {str(one) for (one,) in read_if_made(folder, query, records, reached)}


def is_flushed(folder: Path, collection: str) -> bool | None:
    """Tell whether the index files hold all records; None if the database is locked or does not tell."""
    with suppress(UpsertCliError):  # it is locked, or cannot be read
        reached: dict[str, int] = dict(read_if_made(folder, _REACHED, collection))
        if "METADATA" in reached:
            return reached.get("VECTOR", 0) >= reached["METADATA"]
    return None


def reading_flushes(folder: Path, collection: str) -> bool:
    """Tell whether merely reading a collection would write its index files, since too much is queued for them."""
    return any(
        queued >= min((value for text in configurations for value in _stored(text, "sync_threshold")), default=0)
        for *configurations, queued in read_if_made(folder, _QUEUED, collection)
    )


def describe(folder: Path, collection: str) -> CollectionInfo | None:
    """Return the description of a collection; None if the database has none of that name."""
    rows = read_if_made(folder, _DESCRIBED, collection)
    if not rows:
        return None
    identity, dimension, *configurations = rows[0]
    pairs = read_if_made(folder, f"{_PAIRS} FROM collection_metadata WHERE collection_id = ?", identity)
    return info_of(collection, dimension, dict(pairs), *map(_parsed, configurations))


def list_collections(folder: Path) -> list[tuple[CollectionInfo, int]]:
    """Return the collections of Chroma's default database in a folder by name, each with its number of records.

    Raises:
        TargetBusy: Another program keeps the database locked.
        UpsertCliError: There is no Chroma in the folder, or its database cannot be read.
    """
    if not (folder / DATABASE_NAME).is_file():
        raise UpsertCliError(
            message=f"there is no Chroma in {folder}; --chroma names another folder, `upsert-cli run` makes one"
        )
    rows = read(folder, _LISTED)
    pairs = read(folder, f"{_PAIRS}, collection_id FROM collection_metadata")
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
            database.execute("DELETE FROM main.max_seq_id WHERE segment_id = ?", (segment,))
    return moved


def make_queue_readable(folder: Path) -> None:
    """Rewrite the queued rows of an older version of Chroma at which today's engine would end."""
    with writing(folder) as database:
        rewrite_queue(database)


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
