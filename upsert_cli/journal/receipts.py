"""The receipts of a task that is loaded in units: which units are done, and with which outcome.

A receipt is added after the collection has acknowledged the whole unit, so a unit without one is loaded (again).
Only the process that runs the task reads and writes them.
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

DIGEST_BYTES = 16  # of a digest in place of an id; two of 10 million ids share one in 10^24 tasks
SOURCE_SHIFT = 40  # bits of a row's number in a `place`: 10^12 rows of a source
CACHE_KIB = 8_192  # of memory; larger sorts use the temporary folder

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
    """The effect of one or several rows of a unit on an id."""

    row: int
    """The last of them."""

    inserted: bool
    """Whether one of them was counted as inserted."""

    unchanged: bool
    """Whether one of them was counted as unchanged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Outcome):
    """The outcome of a unit whose records the store has acknowledged, or the error that ended it."""

    unit: Unit
    rest: Unit | None = None
    """The part of the unit that is left: its end was not known, or its source broke off."""

    ids: Sequence[tuple[bytes, Loaded]] = ()
    """A digest of the id of each loaded item, once for each part of the unit that was loaded separately; it shows
    repeated ids, also within the unit."""

    embedded: int = 0
    """Number of items with an embedded text; like the next two, it is not kept in the journal."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds that each stage was busy."""

    error: Exception | None = None
    """An error that belongs to no item. If the source broke off, the rows before `rest` are written and counted; after
    any other error some rows may be written, and the whole unit has to be loaded again."""


def digest_of(identifier: str) -> bytes:
    """Return a digest that stands for an id and has the same size for all."""
    # JSON can spell text that is not valid Unicode.
    return blake2b(identifier.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def follow(ids: dict[bytes, Loaded], later: Iterable[tuple[str, Loaded]]) -> None:
    """Add the effects that later rows of the same unit had on their ids."""
    for identifier, one in later:
        digest = digest_of(identifier)
        before = ids.get(digest, one)
        ids[digest] = Loaded(one.row, before.inserted or one.inserted, before.unchanged or one.unchanged)


class Receipts:
    """The receipts of one task, in an SQLite file that is whole at any instant."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        """Take over a database; use `open_at`."""
        self._path = path
        self._database = database

    @classmethod
    def open_at(cls, path: Path) -> Receipts:
        """Open the receipts of a task, or begin with none.

        Raises:
            JournalUnwritable: There is no room or no access, or the file is damaged.
        """
        import sqlite3  # late, since `list` and `info` never need it

        os.close(open_or_create(path))  # SQLite would not make it private
        with _sqlite_errors(path):
            # An absolute name and not a URI: a `?` in it is a character like any other.
            database = sqlite3.connect(path, isolation_level=None)
            database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            database.execute("PRAGMA temp_store = FILE")
            database.executescript(_TABLES)
        return cls(path, database)

    def begin(self, *, is_empty: bool) -> None:
        """Keep, the first time, whether the collection was empty before the task wrote anything."""
        with _sqlite_errors(self._path):
            self._database.execute(
                "INSERT INTO beginning SELECT ? WHERE NOT EXISTS (SELECT 1 FROM beginning)", (is_empty,)
            )

    def add(self, receipt: Receipt) -> None:
        """Keep a receipt, all or nothing; it survives a power failure from then on."""
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
            (digest, _place(unit, one.row), _INSERTED * one.inserted | _UNCHANGED * one.unchanged)
            for digest, one in receipt.ids
        ]
        with _sqlite_errors(self._path), self._transaction():
            self._database.execute("INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?)", values)
            self._database.executemany("INSERT INTO ids VALUES (?, ?, ?)", ids)

    def left_of(self, unit: Unit) -> Unit | None:
        """Return the part of a unit that has no receipt; None if there is a receipt for all of it."""
        left: Unit | None = unit
        while (
            left is not None and (found := self._one("SELECT body FROM receipts WHERE unit = ?", left.id)) is not None
        ):
            rest = json.loads(found[0])["rest"]
            left = None if rest is None else Unit.from_json(rest)
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
        """Return the difference to add to the sum so that each new record is counted once.

        Units that load an id at the same time both find it new. And a unit that runs again after its worker died finds
        its own records unchanged, or changed by another unit: in a collection that was empty, all ids are new.
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
        """Yield the rejects of all units in the order of their rows, in bundles."""
        for (text,) in self._all("SELECT rejects FROM receipts ORDER BY place"):
            if text:
                yield [json.loads(line) for line in text.splitlines()]

    def repeated(self) -> Iterator[tuple[Unit, int]]:
        """Yield the last row of each id that was loaded more than once, in order, with its unit."""
        last = "SELECT MAX(place) AS place FROM ids GROUP BY digest HAVING COUNT(*) > 1 ORDER BY place"
        for (place,) in self._all(last):
            # The rows of a unit come after its place.
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
    return unit.start.source << SOURCE_SHIFT | row


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    import sqlite3

    try:
        yield
    except sqlite3.Error as error:
        raise JournalUnwritable(path=str(path), reason=str(error)) from error
