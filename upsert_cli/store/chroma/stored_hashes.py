"""The hashes of stored records, from Chroma's database itself: a thirtieth of the cost of asking Chroma for them.

They are read in a process that has no Chroma open. Chroma brings an SQLite of its own, and two of them in one process
do not see each other's locks; each time one closes the file, the system even drops the locks of the other.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from upsert_cli.documents.hashing import HASH_KEY
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
# A cross join fixes the order: the other one, by an index on the values, looks at all hashes for each batch.
_HASHES = (
    "SELECT e.embedding_id, v.string_value FROM embeddings e CROSS JOIN embedding_metadata v "
    "WHERE e.segment_id = ? AND e.embedding_id IN (SELECT value FROM json_each(?)) AND v.id = e.id AND v.key = ?"
)


def read_hashes(folder: Path, collection: str, ids: Sequence[str]) -> dict[str, str]:
    """Return the `upsert_hash` of each record with one of these ids, if the database tells for certain.

    A record that is not in the answer may exist: other versions of Chroma may have other tables, records may be queued,
    or the database may be locked or in need of recovery. Chroma itself knows then.
    """
    try:
        with closing(connect(folder / DATABASE_NAME, mode="ro", seconds=PROBE_SECONDS)) as database:
            database.execute("BEGIN")  # both queries see the same moment
            if (segment := database.execute(_APPLIED, (collection,)).fetchone()) is None:
                return {}
            found = database.execute(_HASHES, (*segment, json.dumps(ids), HASH_KEY)).fetchall()
    except sqlite3.Error:
        return {}
    return {one: hashed for one, hashed in found if hashed is not None}
