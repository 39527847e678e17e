"""The records of a collection in a folder, read page by page from Chroma's tables, without Chroma and without a lease.

A page is found by the number of the record before it, so the last one costs no more than the first. Vectors are not in
the tables.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from upsert_cli.documents.chunking import OBJECT_KEY
from upsert_cli.documents.hashing import CHUNK_MARK, HASH_KEY
from upsert_cli.store.base import NumberedRecord, Record
from upsert_cli.store.chroma.database_file import connect, error_name, meaning, read_if_made
from upsert_cli.store.chroma.queued import DOCUMENT_KEY, HIDDEN_PREFIX, QueuedChanges
from upsert_cli.store.folder import DATABASE_NAME

LOCKED_SECONDS = 30.0  # seconds to wait for a writer; a load into the same folder commits for a second at a time

_STATE = (
    "SELECT c.id, m.id, COALESCE(r.seq_id, 0), "
    "COALESCE((SELECT MAX(q.seq_id) FROM embeddings_queue q WHERE q.topic LIKE '%/' || c.id), 0), "
    "(SELECT COUNT(*) FROM embeddings e WHERE e.segment_id = m.id) FROM collections c "
    "JOIN segments m ON m.collection = c.id AND m.scope = 'METADATA' LEFT JOIN max_seq_id r ON r.segment_id = m.id "
    "JOIN databases d ON d.id = c.database_id "
    "WHERE c.name = ? AND d.name = 'default_database' AND d.tenant_id = 'default_tenant'"
)
# The plus keeps SQLite from the index on the segment, by which it would sort all records for each page.
_NUMBERS = "SELECT id, embedding_id FROM embeddings WHERE id > ? AND +segment_id = ? ORDER BY id LIMIT ?"
_OF_ITEMS = (
    "SELECT e.id, e.embedding_id FROM embedding_metadata m JOIN embeddings e ON e.id = m.id "
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordTables:
    """The tables with the records of a collection at the time when they were found."""

    folder: Path

    collection: str
    """Its id, which another collection of the same name does not have."""

    segment: str
    """Its part of the tables."""

    applied: int
    """The last change that the tables have."""

    queued: int
    """The last change in the queue, from which applied ones are removed in time."""

    count: int
    """Records, with those that are only queued."""

    pending: QueuedChanges | None
    """The changes that the tables do not have; None if they have all."""

    @property
    def changes(self) -> int:
        """Return the number of the last change; negative while some are only queued, which get other numbers later."""
        return self.applied if self.pending is None else -self.queued

    @classmethod
    def find(cls, folder: Path, collection: str) -> RecordTables | None:
        """Return the tables of a collection; None if no collection has that name."""
        if not read_if_made(folder, "SELECT 1"):  # undoes an unfinished write of a killed program
            return None
        with _reading(folder) as database:
            found = database.execute(_STATE, (collection,)).fetchone()
            if found is None:
                return None
            identity, segment, applied, queued, count = found
            pending = None
            if applied < queued:
                pending = QueuedChanges.find(database, collection=identity, segment=segment, applied=applied)
                count += len(pending.new) - pending.removed
        return cls(
            folder=folder,
            collection=identity,
            segment=segment,
            applied=applied,
            queued=queued,
            count=count,
            pending=pending,
        )

    def after(self, number: int, *, rows: int) -> list[NumberedRecord]:
        """Return the next records after a number, in the order of their numbers; queued ones come last."""
        with _reading(self.folder) as database:
            while numbers := database.execute(_NUMBERS, (number, self.segment, rows)).fetchall():
                if page := [*self._changed(database, _readable(database, numbers))]:
                    return page
                number = numbers[-1][0]  # queued changes delete the whole page
            return [] if self.pending is None else [*islice(self.pending.records_after(database, number), rows)]

    def _changed(self, database: sqlite3.Connection, page: Iterable[NumberedRecord]) -> Iterator[NumberedRecord]:
        for number, record, fault in page:
            changed = record if self.pending is None else self.pending.changed(database, record.id, record)
            if changed is not None:
                yield NumberedRecord(number, changed, fault)

    def has_chunks(self) -> bool:
        """Tell whether a record is a chunk of an item."""
        with _reading(self.folder) as database:
            found = database.execute(_HAS_CHUNKS, (HASH_KEY, f"%{CHUNK_MARK}", self.segment)).fetchone()
        return found is not None

    def of_items(self, items: Sequence[str]) -> list[Record]:
        """Return the records that name one of these items as theirs."""
        with _reading(self.folder) as database:
            numbers = database.execute(_OF_ITEMS, (OBJECT_KEY, json.dumps(items), self.segment)).fetchall()
            return [each.record for each in _readable(database, numbers) if each.fault is None]

    def boundaries(self, *, rows: int) -> Iterator[tuple[int, int]]:
        """Yield the count and the number of each record that ends a run of `rows` records, and of the last record."""
        count = number = 0
        while self.pending is not None and (page := self.after(number, rows=rows)):
            count, number = count + len(page), page[-1].number
            yield count, number
        while self.pending is None:
            with _reading(self.folder) as database:
                found = database.execute(_NUMBERS, (number, self.segment, rows)).fetchall()
            if not found:
                return
            count, number = count + len(found), int(found[-1][0])
            yield count, number


def _readable(database: sqlite3.Connection, numbers: Sequence[tuple[int, str]]) -> list[NumberedRecord]:
    """Return records, found by bisecting where a part of the file is damaged; those that are in it have a fault."""
    try:
        return [*_records(database, numbers)]
    except sqlite3.DatabaseError as error:
        if error_name(error) and not error_name(error).startswith("SQLITE_CORRUPT"):  # a text that is no UTF-8 has none
            raise
        if len(numbers) > 1:
            middle = len(numbers) // 2
            return [*_readable(database, numbers[:middle]), *_readable(database, numbers[middle:])]
        number, identifier = numbers[0]
        fault = f"its document and metadata are in a damaged part of {DATABASE_NAME} ({error})"
        return [NumberedRecord(number, Record(identifier, None, {}), fault)]


def _records(database: sqlite3.Connection, numbers: Sequence[tuple[int, str]]) -> Iterator[NumberedRecord]:
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
        yield NumberedRecord(number, Record(identifier, found.get(DOCUMENT_KEY), metadata))


def _value(columns: list[Any]) -> Any:
    text, integer, number, flag = columns
    if text is not None:
        return text
    if integer is not None:
        return integer
    return number if number is not None or flag is None else bool(flag)


@contextmanager
def _reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the database, and keep one state of it for all queries."""
    try:
        with closing(connect(folder / DATABASE_NAME, mode="ro", seconds=LOCKED_SECONDS)) as database:
            database.execute("BEGIN")
            yield database
    except sqlite3.Error as error:
        raise meaning(folder, error) from error
