"""The migrations of Chroma's database: which of them a folder has, and today's tables as views of older ones.

Chroma adds the migrations that a folder lacks as soon as it opens it, and an older version cannot open it from then on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

KNOWN = {"embeddings_queue": 2, "metadb": 6, "sysdb": 10}
"""The last migration of each kind in Chroma 1.5."""

APPLIED = "SELECT dir, MAX(version) FROM migrations GROUP BY dir"
"""The query for the last migration of each kind."""

_FIRST_VERSIONS = (("metadb", 5, "1.0"), ("sysdb", 10, "1.3"), ("metadb", 6, "1.5"))
"""The versions of Chroma that brought some migrations; measured with 0.6.3, 1.0.0, 1.2.2, 1.3.0, 1.4.1 and 1.5.0."""

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
}  # a view has no row numbers of its own
# A record without a document, as versions before 1.0 queued it: today's engine ends at it. The tables have the record
# already, and only the index, which needs no document, is still to take it from the queue.
_NULL_DOCUMENTS = (
    """UPDATE embeddings_queue SET metadata = json_remove(metadata, '$."chroma:document"') """
    """WHERE metadata LIKE '%"chroma:document": null%' AND json_type(metadata, '$."chroma:document"') = 'null'"""
)


def is_older(found: Mapping[str, int]) -> bool:
    """Tell whether Chroma would change a database by opening it; a new one is not older."""
    return bool(found) and any(found.get(kind, 0) < last for kind, last in KNOWN.items())


def is_newer(found: Mapping[str, int], known: Mapping[str, int]) -> bool:
    """Tell whether a database has migrations that a version of Chroma with those `known` has never heard of."""
    return any(last > known.get(kind, 0) for kind, last in found.items())


def writer(found: Mapping[str, int]) -> str:
    """Return the version of Chroma that wrote a database, as far as its migrations tell."""
    for kind, number, version in _FIRST_VERSIONS:
        if found.get(kind, 0) < number:
            return f"a version of Chroma before {version}"
    return "a version of Chroma after 1.5" if is_newer(found, KNOWN) else "Chroma 1.5"


def show_as_todays(database: sqlite3.Connection) -> None:
    """Put views of today's tables in front of older ones, for this connection alone; nothing is written."""
    tables = {str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables or not is_older(dict(database.execute(APPLIED))):
        return
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


def rewrite_queue(database: sqlite3.Connection) -> None:
    """Rewrite the queued rows of older versions at which today's engine would end."""
    database.execute(_NULL_DOCUMENTS)


def _seq_number(value: int | bytes | None) -> int | None:
    """Return a number of the queue, which versions before 1.0 stored as eight bytes."""
    return int.from_bytes(value, "big") if isinstance(value, bytes) else value
