"""The hashes of stored records, from Chroma's database itself: a thirtieth of the cost of asking Chroma for them.

They are read in a process that has no Chroma open. Chroma brings an SQLite of its own, and two of them in one process
do not see each other's locks; each time one closes the file, the system even drops the locks of the other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from upsert_cli.documents.hashing import HASH_KEY
from upsert_cli.sources.json_text import as_json
from upsert_cli.store.chroma.database import PROBE_SECONDS, connect
from upsert_cli.store.folder import DATABASE_NAME

# Records are queued first, and then applied to the tables of the collection's metadata segment. This finds the segment
# only if it has applied everything that is queued for the collection.
_APPLIED = (
    "SELECT m.segment_id FROM collections c JOIN databases d ON c.database_id = d.id "
    "JOIN segments s ON s.collection = c.id AND s.scope = 'METADATA' JOIN max_seq_id m ON m.segment_id = s.id "
    "WHERE c.name = ? AND d.name = 'default_database' AND d.tenant_id = 'default_tenant' "
    "AND typeof(m.seq_id) = 'integer' AND NOT EXISTS "
    "(SELECT 1 FROM embeddings_queue q WHERE q.seq_id > m.seq_id AND q.topic LIKE '%/' || c.id)"
)
# For the ids and hashes of a JSON object. Equal hashes are not returned, which spares a third of the time.
_CHANGED = (
    "SELECT wanted.key, COALESCE(v.string_value, '') FROM json_each(?) wanted "
    "LEFT JOIN embeddings e ON e.segment_id = ? AND e.embedding_id = wanted.key "
    "LEFT JOIN embedding_metadata v ON v.id = e.id AND v.key = ? WHERE v.string_value IS NOT wanted.value"
)


def changed_hashes(folder: Path, collection: str, hashes: Mapping[str, str]) -> dict[str, str]:
    """Return, by id, the stored `upsert_hash` of each record that is not certain to have the given one.

    It is empty where the database does not tell for certain. A record may exist all the same: other versions of Chroma
    may have other tables, records may be queued, or the database may be locked or in need of recovery. Chroma itself
    knows then.
    """
    unknown = dict.fromkeys(hashes, "")
    try:
        with closing(connect(folder / DATABASE_NAME, mode="ro", seconds=PROBE_SECONDS)) as database:
            database.execute("BEGIN")  # both queries see the same moment
            if (segment := database.execute(_APPLIED, (collection,)).fetchone()) is None:
                return unknown
            found = dict(database.execute(_CHANGED, (as_json(hashes).decode(), *segment, HASH_KEY)))
    except (sqlite3.Error, TypeError):  # a TypeError: an id is not valid Unicode
        return unknown
    return found if found.keys() <= hashes.keys() else unknown  # all ids were understood
