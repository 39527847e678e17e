"""The changes that are queued for a collection, and that its tables do not have yet.

Chroma queues a write, and takes it into the tables a moment later; but never, if a row that it cannot store stands
before it, or if the folder cannot be opened any more. Here such a row counts as well: a load stores it in another form,
or rejects it by name.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from upsert_cli.store.base import NumberedRecord, Record

DOCUMENT_KEY = "chroma:document"
HIDDEN_PREFIX = "chroma:"  # of keys that are no metadata
QUEUED_FROM = 1 << 62  # the numbers of queued records begin after those of all records in tables
_ADD, _UPDATE, _DELETE = 0, 1, 3  # operations of the queue; 2 is an upsert
_NUMBERS = "SELECT seq_id, id FROM embeddings_queue WHERE seq_id > ? AND topic LIKE '%/' || ? ORDER BY seq_id"
_CHANGE = "SELECT operation, metadata FROM embeddings_queue WHERE seq_id = ?"
_STORED = (
    "SELECT embedding_id FROM embeddings WHERE segment_id = ? AND embedding_id IN (SELECT value FROM json_each(?))"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedChanges:
    """The numbers of the queued changes of each record, and which of these records the tables do not have."""

    numbers: dict[str, list[int]]
    new: dict[int, str]
    """The ids of records that are not in the tables, by the number of their first change, in that order."""

    removed: int
    """Records of the tables that queued changes delete."""

    @classmethod
    def find(cls, database: sqlite3.Connection, *, collection: str, segment: str, applied: int) -> QueuedChanges:
        """Return the changes after the last one that the tables of a collection have."""
        numbers: dict[str, list[int]] = {}
        for number, identifier in database.execute(_NUMBERS, (applied, collection)):
            numbers.setdefault(identifier, []).append(number)
        stored = {one for (one,) in database.execute(_STORED, (segment, json.dumps([*numbers])))}
        changes = cls(numbers=numbers, new={}, removed=0)
        new = {numbers[one][0]: one for one in numbers.keys() - stored if changes.is_left(database, one, stored=False)}
        removed = sum(not changes.is_left(database, one, stored=True) for one in stored)
        return cls(numbers=numbers, new=dict(sorted(new.items())), removed=removed)

    def is_left(self, database: sqlite3.Connection, identifier: str, *, stored: bool) -> bool:
        """Tell whether a record exists after its changes; `stored` is whether the tables have it."""
        before = Record(identifier, None, {}) if stored else None
        return self.changed(database, identifier, before) is not None

    def changed(self, database: sqlite3.Connection, identifier: str, record: Record | None) -> Record | None:
        """Return a record as its changes leave it; None if it does not exist before or after them."""
        for number in self.numbers.get(identifier, ()):
            row = database.execute(_CHANGE, (number,)).fetchone()
            if row is not None:  # otherwise the tables have it by now
                record = _after(record, identifier, operation=row[0], values=json.loads(row[1] or "{}") or {})
        return record

    def records_after(self, database: sqlite3.Connection, number: int) -> Iterator[NumberedRecord]:
        """Yield the records that the tables do not have, after one with a number."""
        for first, identifier in self.new.items():
            if QUEUED_FROM + first > number and (record := self.changed(database, identifier, None)) is not None:
                yield NumberedRecord(QUEUED_FROM + first, record)


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
