"""A local folder as the location of a collection: Chroma works in our own process there.

Such a folder needs care: nobody else at its files, enough disk space, a sound index.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from upsert_cli.errors import Refusal, TargetBusy, TargetInUse, UpsertCliError
from upsert_cli.locks import Holder
from upsert_cli.store.base import Opened, Target
from upsert_cli.store.chroma.database import CollectionEntry, describe, describe_all, find_entry, reading, writing
from upsert_cli.store.chroma.faults import understood
from upsert_cli.store.chroma.index_check import check_files, check_rows, is_overwritten
from upsert_cli.store.chroma.stamp import stored_values
from upsert_cli.store.chroma.stored_hashes import changed_hashes
from upsert_cli.store.chroma.tables import RecordTables
from upsert_cli.store.chroma.upgrade import prepare_upgrade, readable_copy
from upsert_cli.store.folder import (
    DATABASE_NAME,
    LEASE_NAME,
    Opener,
    find_openers,
    os_fault,
    prepare_folder,
    require_space,
)
from upsert_cli.store.location import CollectionInfo, CollectionState, Ledger, Location

if TYPE_CHECKING:
    import sqlite3

    from upsert_cli.store.chroma.records import ChromaStore

SHOWN_OPENERS = 3  # processes that a message names
# Values that the engine can read from its queue in one statement: six variables each, of 32,766 that sqlite allows.
QUEUE_KEYS = 5_460
QUEUE_REMOVED = 32_766
_IN_QUEUE = "FROM embeddings_queue WHERE topic LIKE '%/' || ? AND seq_id > ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFolder(Location):
    """A folder; its lease covers all collections in it."""

    is_shared: ClassVar[bool] = False
    in_cloud: ClassVar[bool] = False
    most_rows: ClassVar[int] = sys.maxsize

    path: Path
    """Absolute."""

    collection: str
    is_copy: bool = False
    """Whether it is a temporary copy, which may be upgraded without a word."""

    def in_use(self, holder: Holder) -> TargetInUse:
        """Name the folder, which is taken as a whole."""
        return TargetInUse(path=str(self.path), holder=str(holder))

    def describe(self) -> CollectionInfo | None:
        """Ask the database."""
        with reading(self.path) as database:
            return describe(database, self.collection)

    def require_lists(self) -> None:
        """Check nothing, since the Chroma that is installed stores lists."""

    def list_collections(self) -> list[tuple[CollectionInfo, int]]:
        """Ask the database, which has to exist."""
        with reading(self.path) as database:
            if not (self.path / DATABASE_NAME).is_file():
                raise UpsertCliError(
                    message=f"there is no Chroma in {self.path}; --chroma names another folder, `upsert-cli run` makes "
                    f"one"
                )
            return describe_all(database)

    def state(self) -> CollectionState | None:
        """Ask the database."""
        found = self.tables()
        return None if found is None else found.state

    def tables(self) -> RecordTables | None:
        """Return the tables, with the changes that are queued for them."""
        return RecordTables.find(self.path, self.collection)

    def enter(self) -> None:
        """Create the folder for this user alone, and change to it."""
        if prepare_folder(self.path):
            os.umask(0o077)  # what Chroma creates in it has to be as private
        try:
            os.chdir(self.path)  # chromadb reads the .env file of the working folder when it is imported
        except OSError as error:
            raise os_fault(self.path, error) from error

    def lease_path(self) -> Path:
        """Return a file in the folder itself, which every load sees, with any journal."""
        return self.path / LEASE_NAME

    def open(
        self,
        target: Target,
        *,
        unclean: bool = False,
        ledger: Ledger | None = None,
        notify: Callable[[str], None] = lambda _: None,  # noqa: ARG002  # nothing is retried
    ) -> tuple[ChromaStore, Opened]:
        """Check the files, and open the collection with Chroma's library."""
        from upsert_cli.store.chroma.client import connect_folder
        from upsert_cli.store.chroma.records import ChromaStore

        if not (target.beside_others or target.as_a_whole):
            self.check_index(target, suspicious=unclean)
        if not (target.examined or target.as_a_whole):
            check_rows(target, self.path)
        upgrade = prepare_upgrade(self, target)
        with understood(target):
            client = connect_folder(str(self.path))
        store = ChromaStore(target, self, client, unclean=unclean, ledger=ledger)
        return store, replace(store.opened, upgrade=upgrade)

    def index_folder(self) -> Path | None:
        """Return the folder with the index files of the collection, which Chroma leaves behind when it is deleted."""
        entry = self._entry()
        return None if entry is None or entry.vectors is None else self.path / entry.vectors

    def require_space(self, rows: int) -> None:
        """Check the disk of the folder."""
        require_space(self.path, rows=rows)

    def check_index(self, target: Target, *, suspicious: bool) -> None:
        """Check the disk space and the index files; see `index_check.check_files`."""
        self.require_space(0)
        check_files(target, self.path, suspicious=suspicious)

    def is_flushed(self) -> bool | None:
        """Ask the database how far the index is."""
        with suppress(UpsertCliError):  # it is locked, or cannot be read
            return None if (entry := self._entry()) is None else entry.is_flushed
        return None

    def has_index(self) -> bool:
        """Ask the database."""
        return (entry := self._entry()) is not None and entry.written_index is not None

    def is_overwritten(self) -> bool:
        """Compare the number of records with the index files."""
        return is_overwritten(self.path, self.collection)

    def _entry(self) -> CollectionEntry | None:
        with reading(self.path) as database:
            return find_entry(database, self.collection)

    def changed_hashes(self, hashes: Mapping[str, str]) -> dict[str, str]:
        """Ask the database."""
        return changed_hashes(self.path, self.collection, hashes)

    # -- other programs ------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Check for a foreign writer, for whom Chroma would wait for a quarter of an hour."""
        try:
            if (self.path / DATABASE_NAME).exists():
                with writing(self.path):
                    pass  # so nobody else writes
        except TargetBusy as error:
            raise TargetBusy(path=str(self.path), program=_named(find_openers(self.path, patience=0.0))) from error

    def require_alone(self, *, parent: int = 0) -> None:
        """Look for processes that have the files open, and for a writer that cannot be seen."""
        openers = [opener for opener in find_openers(self.path) if opener.pid != parent]
        self.probe()
        if openers:
            raise Refusal(
                message=f"{self.path} is open in {_named(openers)}, which may write its older index over a loaded "
                f"one; nothing was written: stop it, then try again, or, if it is a Chroma server, load through it "
                f"with --chroma http://HOST:PORT"
            )

    def reading_flushes(self) -> bool:
        """Ask the database how much is queued for the index, and from how much on it is written."""
        with reading(self.path) as database:
            if (entry := find_entry(database, self.collection)) is None or entry.vectors is None:
                return False
            (queued,) = database.execute(f"SELECT COUNT(*) {_IN_QUEUE}", (entry.id, entry.indexed or 0)).fetchone()
        return bool(queued >= min(stored_values("sync_threshold", *entry.configurations), default=0))

    # -- repair --------------------------------------------------------------------------------------------------------

    def take_poison(self) -> list[str]:
        """Remove the rows from the collection's queue that the engine can never apply.

        Such a row was never stored, so everything that the collection lists stays.
        """
        with self._repairing() as database:
            if (entry := find_entry(database, self.collection)) is None or entry.records is None:
                return []
            query = f"SELECT seq_id, id, metadata {_IN_QUEUE}"
            queued = database.execute(query, (entry.id, entry.applied or 0)).fetchall()
            poison = [(number, str(one)) for number, one, metadata in queued if _is_poison(metadata)]
            database.executemany("DELETE FROM embeddings_queue WHERE seq_id = ?", [(number,) for number, _ in poison])
        return [one for _, one in poison]

    def put_index_aside(self) -> list[str]:
        """Rename the folder of the collection's index; nothing is deleted."""
        with self._repairing() as database:
            if (entry := find_entry(database, self.collection)) is None or entry.vectors is None:
                return []
            index = self.path / entry.vectors
            aside = index.with_name(f"{index.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
            if is_there := index.exists():
                index.rename(aside)
            # Like an index that was never flushed: queued rows are read again, and its files are not missed.
            database.execute("DELETE FROM main.max_seq_id WHERE segment_id = ?", (entry.vectors,))
        return [aside.name] if is_there else []

    @contextmanager
    def _repairing(self) -> Iterator[sqlite3.Connection]:
        """Change the database under the lease, and leave to the next writer to check closely."""
        holder = Holder.this_process()
        with self.take_lease(holder) as lease:
            Ledger(lease, holder, self.collection)
            self.require_alone()
            with writing(self.path) as database:
                yield database

    def readable_copy(self, notify: Callable[[str], None]) -> AbstractContextManager[LocalFolder] | None:
        """Return a copy if Chroma would upgrade the folder, or if anything to be written is read-only."""
        return readable_copy(self, notify)


def _named(openers: list[Opener]) -> str:
    return ", ".join(map(str, openers[:SHOWN_OPENERS]))


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
