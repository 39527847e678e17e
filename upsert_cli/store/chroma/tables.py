"""The records of a collection in a folder, read page by page from Chroma's tables, without Chroma and without a lease.

A page is found by the number of the record before it, so the last page costs no more than the first. Vectors are not in
the tables.

Chroma queues a write, and applies it to the tables a moment later. It never does if a row that it cannot store precedes
the write in the queue, or if it cannot open the folder. So the queue is read too: a load stores such a row in another
form, or rejects it by name.

The process that reads the tables has no Chroma open. Chroma brings another SQLite, and two of them in one process do
not see each other's locks. When one closes the file, the system even drops the locks of the other.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from upsert_cli.documents.hashing import CHUNK_MARK, HASH_KEY, OBJECT_KEY
from upsert_cli.sources.json_text import as_json
from upsert_cli.store.base import FindRecords, Record
from upsert_cli.store.chroma.database import (
    PROBE_SECONDS,
    connect,
    count_records,
    error_name,
    find_entry,
    reading,
)
from upsert_cli.store.folder import DATABASE_NAME
from upsert_cli.store.target import CollectionState

LOCKED_SECONDS = 30.0  # seconds to wait for a writer; a load into the same folder commits for a second at a time
DOCUMENT_KEY = "chroma:document"
HIDDEN_PREFIX = "chroma:"  # how keys begin that are no metadata
QUEUED_FROM = 1 << 62  # the numbers of queued records begin after those of all records in tables
_ADD, _UPDATE, _DELETE = 0, 1, 3  # operations of the queue; 2 is an upsert

# Because of the plus, SQLite does not use the index on the segment, with which it would sort all records for each page.
_NUMBERS = "SELECT id, CAST(embedding_id AS BLOB) FROM embeddings WHERE id > ? AND +segment_id = ? ORDER BY id LIMIT ?"
_OF_ITEMS = (
    "SELECT e.id, CAST(e.embedding_id AS BLOB) FROM embedding_metadata m JOIN embeddings e ON e.id = m.id "
    "WHERE m.key = ? AND m.string_value IN (SELECT value FROM json_each(?)) AND e.segment_id = ?"
)
_HAS_CHUNKS = (
    "SELECT 1 FROM embedding_metadata m JOIN embeddings e ON e.id = m.id "
    "WHERE m.key = ? AND m.string_value LIKE ? AND e.segment_id = ? LIMIT 1"
)
_SCALARS = (
    "SELECT id, key, string_value, int_value, float_value, bool_value FROM embedding_metadata "
    "WHERE id IN (SELECT value FROM json_each(?))"
)
_LISTS = (
    "SELECT id, key, string_value, int_value, float_value, bool_value FROM embedding_metadata_array "
    "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY rowid"
)
_QUEUED = "SELECT seq_id, id FROM embeddings_queue WHERE seq_id > ? AND topic LIKE '%/' || ? ORDER BY seq_id"
_CHANGE = "SELECT operation, metadata FROM embeddings_queue WHERE seq_id = ?"
_STORED = (
    "SELECT embedding_id FROM embeddings WHERE segment_id = ? AND embedding_id IN (SELECT value FROM json_each(?))"
)
# Finds the metadata segment of a collection only if its tables have all changes that are queued for the collection.
_APPLIED = (
    "SELECT m.segment_id FROM collections c JOIN databases d ON c.database_id = d.id "
    "JOIN segments s ON s.collection = c.id AND s.scope = 'METADATA' JOIN max_seq_id m ON m.segment_id = s.id "
    "WHERE c.name = ? AND d.name = 'default_database' AND d.tenant_id = 'default_tenant' "
    "AND typeof(m.seq_id) = 'integer' AND NOT EXISTS "
    "(SELECT 1 FROM embeddings_queue q WHERE q.seq_id > m.seq_id AND q.topic LIKE '%/' || c.id)"
)
# Compares the ids and hashes of a JSON object, and returns only differences, which saves a third of the time.
_CHANGED = (
    "SELECT wanted.key, COALESCE(v.string_value, '') FROM json_each(?) wanted "
    "LEFT JOIN embeddings e ON e.segment_id = ? AND e.embedding_id = wanted.key "
    "LEFT JOIN embedding_metadata v ON v.id = e.id AND v.key = ? WHERE v.string_value IS NOT wanted.value"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordTables:
    """The tables with the records of a collection, as of one moment."""

    folder: Path

    segment: str
    """The metadata segment of the collection: its part of the tables."""

    state: CollectionState
    """With the queued changes; `changes` is negative while there are any, since they get other numbers later."""

    queued: dict[str, list[int]]
    """By id of a record, the numbers of its changes that the tables do not have yet."""

    new: dict[int, str]
    """By the number of its first change, the id of each record that the tables do not have, in that order."""

    @classmethod
    def find(cls, folder: Path, collection: str) -> RecordTables | None:
        """Return the tables of a collection; None if it is missing."""
        with reading(folder, seconds=LOCKED_SECONDS) as database:
            entry = find_entry(database, collection)
            if entry is None or entry.records is None:
                return None
            changes = entry.applied or 0
            queued: dict[str, list[int]] = {}
            for number, identifier in database.execute(_QUEUED, (changes, entry.id)).fetchall():
                queued.setdefault(identifier, []).append(number)
                changes = -number
            stored = {one for (one,) in database.execute(_STORED, (entry.records, json.dumps([*queued])))}
            # Whether a record will exist after its changes depends on whether it does now, not on its content.
            present = {one: Record(one, None, {}) if one in stored else None for one in queued}
            remaining = {one for one in queued if _changed(database, queued[one], one, present[one]) is not None}
            count = count_records(database, entry) - len(stored) + len(remaining)
        return cls(
            folder=folder,
            segment=entry.records,
            state=CollectionState(entry.id, changes, count),
            queued=queued,
            new={queued[one][0]: one for one in queued if one in remaining and one not in stored},
        )

    def after(self, number: int, *, rows: int) -> list[Record]:
        """Return the next records after a number, in the order of their numbers; queued ones come last."""
        with reading(self.folder, seconds=LOCKED_SECONDS) as database:
            while numbers := database.execute(_NUMBERS, (number, self.segment, rows)).fetchall():
                if page := [*self._after_changes(database, _readable(database, numbers))]:
                    return page
                number = numbers[-1][0]  # since queued changes delete the whole page
            return [*islice(self._new_after(database, number), rows)]

    def _after_changes(self, database: sqlite3.Connection, page: Iterable[Record]) -> Iterator[Record]:
        for record in page:
            if (changes := self.queued.get(record.id)) is None:
                yield record
            elif (changed := _changed(database, changes, record.id, record)) is not None:
                yield changed._replace(number=record.number, fault=record.fault)

    def _new_after(self, database: sqlite3.Connection, number: int) -> Iterator[Record]:
        """Yield the records after a number that the tables do not have."""
        for first, identifier in self.new.items():
            if QUEUED_FROM + first > number:
                record = _changed(database, self.queued[identifier], identifier, None)
                if record is not None:
                    yield record._replace(number=QUEUED_FROM + first)

    def has_chunks(self) -> bool:
        """Return whether a record is a chunk of an item."""
        with reading(self.folder, seconds=LOCKED_SECONDS) as database:
            found = database.execute(_HAS_CHUNKS, (HASH_KEY, f"%{CHUNK_MARK}", self.segment)).fetchone()
        return found is not None

    def record_finder(self) -> FindRecords | None:
        """Return the function that finds the records of items; None while some of them are only queued."""
        return None if self.queued else self._of_items

    def _of_items(self, items: Sequence[str]) -> list[Record]:
        """Return the records that name one of these items as theirs."""
        with reading(self.folder, seconds=LOCKED_SECONDS) as database:
            numbers = database.execute(_OF_ITEMS, (OBJECT_KEY, json.dumps(items), self.segment)).fetchall()
            return [record for record in _readable(database, numbers) if record.fault is None]

    def boundaries(self, *, rows: int) -> Iterator[tuple[int, int]]:
        """Yield the end of each run of `rows` records: how many records come up to there, and the last one's number."""
        count = number = 0
        while numbers := self._numbers_after(number, rows=rows):
            count, number = count + len(numbers), numbers[-1]
            yield count, number

    def _numbers_after(self, number: int, *, rows: int) -> list[int]:
        if self.queued:
            return [record.number for record in self.after(number, rows=rows)]
        with reading(self.folder, seconds=LOCKED_SECONDS) as database:
            return [int(found) for found, _ in database.execute(_NUMBERS, (number, self.segment, rows))]


def _readable(database: sqlite3.Connection, numbers: Sequence[tuple[int, bytes]]) -> list[Record]:
    """Return records by number and id; those in a damaged part of the file, found by bisecting, have a fault."""
    try:
        return [*_records(database, numbers)]
    except sqlite3.DatabaseError as error:
        if error_name(error) and not error_name(error).startswith("SQLITE_CORRUPT"):  # bad UTF-8 has no name
            raise
        if len(numbers) > 1:
            middle = len(numbers) // 2
            return [*_readable(database, numbers[:middle]), *_readable(database, numbers[middle:])]
        return [_damaged(*numbers[0], error)]


def _damaged(number: int, identifier: bytes, error: Exception) -> Record:
    fault = f"it is in a damaged part of {DATABASE_NAME} ({error})"
    return Record(identifier.decode(errors="backslashreplace"), None, {}, number, fault)


def _records(database: sqlite3.Connection, numbers: Sequence[tuple[int, bytes]]) -> Iterator[Record]:
    chosen = json.dumps([number for number, _ in numbers])
    scalars: dict[int, dict[str, Any]] = {number: {} for number, _ in numbers}
    for number, key, *columns in database.execute(_SCALARS, (chosen,)):
        if (value := _value(columns)) is not None:
            scalars[number][key] = value
    lists: dict[int, dict[str, list[Any]]] = {}
    for number, key, *columns in database.execute(_LISTS, (chosen,)):
        lists.setdefault(number, {}).setdefault(key, []).append(_value(columns))
    for number, identifier in numbers:
        found = lists.get(number, {}) | scalars[number]
        metadata = {key: value for key, value in found.items() if not key.startswith(HIDDEN_PREFIX)}
        try:
            yield Record(identifier.decode(), found.get(DOCUMENT_KEY), metadata, number)
        except UnicodeDecodeError as error:
            yield _damaged(number, identifier, error)


def _value(columns: list[Any]) -> Any:
    text, integer, number, flag = columns
    if text is not None:
        return text
    if integer is not None:
        return integer
    return number if number is not None or flag is None else bool(flag)


def _changed(
    database: sqlite3.Connection, changes: Sequence[int], identifier: str, record: Record | None
) -> Record | None:
    """Return a record with its queued changes; None if they delete it, or update a missing record."""
    for number in changes:
        row = database.execute(_CHANGE, (number,)).fetchone()
        if row is not None:  # otherwise the tables have the change by now
            record = _after(record, identifier, operation=row[0], values=json.loads(row[1] or "{}") or {})
    return record


def _after(record: Record | None, identifier: str, *, operation: int, values: dict[str, Any]) -> Record | None:
    if operation == _DELETE:
        return None
    if (record is None and operation == _UPDATE) or (record is not None and operation == _ADD):
        return record
    text = record.text if record is not None else None
    metadata = dict(record.metadata) if record is not None else {}
    for key, value in values.items():
        if key == DOCUMENT_KEY:
            text = value
        elif value is None:
            metadata.pop(key, None)
        elif not key.startswith(HIDDEN_PREFIX):
            metadata[key] = value
    return Record(identifier, text, metadata)


# -- hashes: a thirtieth of the cost of asking Chroma for them ---------------------------------------------------------


def changed_hashes(folder: Path, collection: str, hashes: Mapping[str, str]) -> dict[str, str]:
    """Return, by id, the stored `upsert_hash` of each record that may differ from the given one.

    The hash is empty if the database does not show it. The record may exist even so: the tables may be those of another
    version, changes may be queued, or the database may be locked or need recovery. Then only Chroma can answer.
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
