"""The receipts of a task that is loaded in units: a receipt has the outcome of a unit that is done.

A receipt is added after the store has acknowledged the whole unit, so a unit without a receipt is loaded (again).
Only the process that runs the task reads and writes receipts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from upsert_cli.counts import Converted, Counts, Outcome
from upsert_cli.errors import JournalUnwritable
from upsert_cli.journal.files import open_or_create
from upsert_cli.journal.rejects import json_line, valid_json
from upsert_cli.sources.rows import Unit

if TYPE_CHECKING:
    import sqlite3

DIGEST_BYTES = 16  # of a digest of an id; 2 of 10 million ids have the same one in 1 of 10^24 tasks
SOURCE_SHIFT = 40  # bits of a row's number in a `place`: 10^12 rows of a source
CACHE_KIB = 8_192  # of memory for SQLite; larger sorts use the temporary folder

_TABLES = """
    CREATE TABLE IF NOT EXISTS receipts (
        unit TEXT PRIMARY KEY, place INTEGER, body TEXT, counts TEXT, converted INTEGER, rejects TEXT
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS places ON receipts (place);
    CREATE TABLE IF NOT EXISTS ids (digest BLOB, place INTEGER, seen INTEGER);
    CREATE TABLE IF NOT EXISTS beginning (is_empty INTEGER);
"""
_INSERTED, _UNCHANGED = 1, 2  # bits of `seen`


class Loaded(NamedTuple):
    """The outcome of the rows of a unit that have one id."""

    row: int
    """The last of these rows."""

    inserted: bool
    """Whether one of these rows was counted as inserted."""

    unchanged: bool
    """Whether one of these rows was counted as unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Outcome):
    """The outcome of a unit whose records the store has acknowledged, or the error that ended it."""

    unit: Unit
    rest: Unit | None = None
    """The rows of the unit that are left to load, if its end was not known or its source broke off."""

    ids: Sequence[tuple[bytes, Loaded]] = ()
    """Digests of the ids of the loaded items, to find ids that are repeated; an id comes once for each part of the unit
    that was loaded separately."""

    embedded: int = 0
    """Number of items with an embedded text; the journal does not keep this and the next two fields."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds that each stage was busy."""

    error: Exception | None = None
    """An error that is no item's fault. If the source broke off, the rows before `rest` are written and counted. After
    any other error, some rows may be written, and the whole unit has to be loaded again."""


def digest_of(identifier: str) -> bytes:
    """Return a digest of an id, which takes less memory than a long id."""
    # With surrogates, since JSON can spell text that is not valid Unicode.
    return blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def follow(ids: dict[bytes, Loaded], later: Iterable[tuple[str, Loaded]]) -> None:
    """Add the outcomes of later rows of the same unit."""
    for identifier, loaded in later:
        digest = digest_of(identifier)
        before = ids.get(digest, loaded)
        ids[digest] = Loaded(
            row=loaded.row,
            inserted=before.inserted or loaded.inserted,
            unchanged=before.unchanged or loaded.unchanged,
        )


class Receipts:
    """The receipts of one task, in an SQLite file, which no crash damages."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        """Take over a database; callers use `open_at`."""
        self._path = path
        self._database = database

    @classmethod
    def open_at(cls, path: Path) -> Receipts:
        """Open the receipts of a task; make the file if it is missing.

        Raises:
            JournalUnwritable: The disk is full, access is denied, or the file is damaged.
        """
        import sqlite3  # late, since `list` and `info` never need it

        os.close(open_or_create(path))  # SQLite would not make it private
        with _sqlite_errors(path):
            # By its path and not by a URI, in which a `?` would have a meaning.
            database = sqlite3.connect(path, isolation_level=None)
            database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            database.execute("PRAGMA temp_store = FILE")
            database.executescript(_TABLES)
        return cls(path, database)

    def begin(self, *, is_empty: bool) -> None:
        """Record, in the first attempt, whether the collection was empty before the task wrote anything."""
        with _sqlite_errors(self._path):
            self._database.execute(
                "INSERT INTO beginning SELECT ? WHERE NOT EXISTS (SELECT 1 FROM beginning)", (is_empty,)
            )

    def add(self, receipt: Receipt) -> None:
        """Add a receipt, all or nothing; it survives a power failure from then on."""
        unit, rest = receipt.unit, receipt.rest
        ended = unit if rest is None else replace(unit, end=rest.after)
        values = (
            unit.id,
            _place(unit, unit.after),
            valid_json({"unit": ended.as_json(), "rest": None if rest is None else rest.as_json()}),
            json.dumps(receipt.counts.as_json() | receipt.converted.as_json()),
            receipt.converted.values,
            "".join(f"{json_line(record)}\n" for record in receipt.rejects),
        )
        ids = [
            (digest, _place(unit, loaded.row), _INSERTED * loaded.inserted | _UNCHANGED * loaded.unchanged)
            for digest, loaded in receipt.ids
        ]
        with _sqlite_errors(self._path), self._transaction():
            self._database.execute("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?)", values)
            self._database.executemany("INSERT INTO ids VALUES (?, ?, ?)", ids)

    def left_of(self, unit: Unit) -> Unit | None:
        """Return the part of a unit without a receipt; None if the whole unit has one."""
        left = unit
        while (found := self._one("SELECT body FROM receipts WHERE unit = ?", left.id)) is not None:
            rest = json.loads(found[0])["rest"]
            if rest is None:
                return None
            left = Unit.from_json(rest)
        return left

    def total(self) -> tuple[Counts, Converted]:
        """Return the sum of all receipts: rows by their outcome, and converted values."""
        counts, converted = Counts(), Converted()
        for text, values in self._all("SELECT counts, converted FROM receipts"):
            counted = json.loads(text)
            counts += Counts.from_json(counted)
            converted += Converted.from_json({"converted": values} | counted)
        return counts, converted

    def correction(self) -> Counts:
        """Return the difference to add to `total`, so that each new record is counted as inserted once.

        Two units that load an id at the same time both find it new. And a unit that is loaded again after its worker
        died finds its own records unchanged, or changed by another unit; in a collection that was empty, such records
        are new, too.
        """
        found = self._one(
            "SELECT TOTAL(MAX(inserted - 1, 0)), TOTAL(NOT inserted AND unchanged), TOTAL(NOT (inserted OR unchanged))"
            " FROM (SELECT SUM(seen & ?) AS inserted, MAX(seen & ?) AS unchanged FROM ids GROUP BY digest)",
            _INSERTED,
            _UNCHANGED,
        )
        twice, unchanged, updated = map(int, found or (0, 0, 0))
        correction = Counts(inserted=-twice, updated=twice)
        if self._one("SELECT 1 FROM beginning WHERE is_empty") is not None:
            correction += Counts(inserted=unchanged + updated, updated=-updated, unchanged=-unchanged)
        return correction

    def rejects(self) -> Iterator[list[dict[str, Any]]]:
        """Yield the rejects of all units in the order of their rows, those of a unit at a time."""
        for (text,) in self._all("SELECT rejects FROM receipts ORDER BY place"):
            if text:
                yield [json.loads(line) for line in text.splitlines()]

    def repeated(self) -> Iterator[tuple[Unit, int]]:
        """Yield the unit and the row of the last item of each id that was loaded more than once, in their order."""
        last = "SELECT MAX(place) AS place FROM ids GROUP BY digest HAVING COUNT(*) > 1 ORDER BY place"
        for (place,) in self._all(last):
            # A row belongs to the last unit whose place is before its own.
            found = self._one("SELECT body FROM receipts WHERE place < ? ORDER BY place DESC LIMIT 1", place)
            if found is not None:
                yield Unit.from_json(json.loads(found[0])["unit"]), place & ((1 << SOURCE_SHIFT) - 1)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Receipts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        import sqlite3

        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        with _sqlite_errors(self._path):
            found: tuple[Any, ...] | None = self._database.execute(query, values).fetchone()
            return found

    def _all(self, query: str) -> Iterator[tuple[Any, ...]]:
        with _sqlite_errors(self._path):
            yield from self._database.execute(query)


def _place(unit: Unit, row: int) -> int:
    """Return a number that orders the rows of all sources."""
    return unit.start.source << SOURCE_SHIFT | row


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    import sqlite3

    try:
        yield
    except sqlite3.Error as error:
        raise JournalUnwritable(path=str(path), reason=str(error)) from error
