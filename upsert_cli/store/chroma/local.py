"""A local folder as the location of a collection: Chroma works in our own process there.

Such a folder needs care: nobody else at its files, enough disk space, a sound index. Chroma opens a folder only where
it can write to it, although it writes nothing while it only reads; so a read-only folder is copied. A folder that an
older version wrote is upgraded as soon as Chroma opens it; so a copy is read there as well.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from upsert_cli.errors import Refusal, TargetBusy, TargetInUse
from upsert_cli.locks import Holder
from upsert_cli.store.base import CollectionInfo, CollectionState, Opened, Target
from upsert_cli.store.chroma import database, migrations
from upsert_cli.store.chroma.database_file import applied_migrations, writing
from upsert_cli.store.chroma.faults import understood
from upsert_cli.store.chroma.index_check import check_files, check_rows
from upsert_cli.store.chroma.stored_hashes import read_hashes
from upsert_cli.store.chroma.tables import RecordTables
from upsert_cli.store.chroma.upgrade import prepare_upgrade
from upsert_cli.store.folder import (
    DATABASE_NAME,
    LEASE_NAME,
    RESERVE_BYTES,
    Opener,
    disk_full,
    find_openers,
    os_fault,
    prepare_folder,
    require_space,
)
from upsert_cli.store.locations import Ledger, Location

if TYPE_CHECKING:
    from upsert_cli.store.chroma.records import ChromaStore

COPIES = 3  # copies before a folder that keeps changing is reported as busy
SHOWN_OPENERS = 3  # processes that a message names


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
        return database.describe(self.path, self.collection)

    def require_lists(self) -> None:
        """Check nothing, since the Chroma that is installed stores lists."""

    def list_collections(self) -> list[tuple[CollectionInfo, int]]:
        """Ask the database."""
        return database.list_collections(self.path)

    def state(self) -> CollectionState | None:
        """Ask the database."""
        found = RecordTables.find(self.path, self.collection)
        return None if found is None else CollectionState(found.collection, found.changes, found.count)

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
        from upsert_cli.store.chroma.collection import OpenCollection
        from upsert_cli.store.chroma.records import ChromaStore

        if not (target.beside_others or target.as_a_whole):
            self.check_index(target, suspicious=unclean)
        if not (target.examined or target.as_a_whole):
            check_rows(target, self.path)
        upgrade = prepare_upgrade(self.path, target, is_copy=self.is_copy)
        with understood(target):
            client = connect_folder(str(self.path))
        collection = OpenCollection(target, self, client, unclean=unclean, ledger=ledger)
        return ChromaStore(collection), replace(collection.opened, upgrade=upgrade)

    def index_folders(self) -> list[Path]:
        """Return the folders with the index files of the collection, which Chroma leaves behind when it is deleted."""
        return [self.path / segment for segment in database.flushed_segments(self.path, self.collection)]

    def require_space(self, rows: int) -> None:
        """Check the disk of the folder."""
        require_space(self.path, rows=rows)

    def check_index(self, target: Target, *, suspicious: bool) -> None:
        """Check the disk space and the index files; see `index_check.check_files`."""
        self.require_space(0)
        check_files(target, self.path, suspicious=suspicious)

    def is_flushed(self) -> bool | None:
        """Ask the database how far the index is."""
        return database.is_flushed(self.path, self.collection)

    def stored_hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """Ask the database."""
        return read_hashes(self.path, self.collection, ids)

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
        """Ask the database how much is queued for the index."""
        return database.reading_flushes(self.path, self.collection)

    # -- repair --------------------------------------------------------------------------------------------------------

    def take_poison(self) -> list[str]:
        """Remove the rows from the database's queue."""
        with self._alone():
            return database.take_poison(self.path, self.collection)

    def put_index_aside(self) -> list[str]:
        """Rename the folders of the index."""
        with self._alone():
            return database.put_index_aside(self.path, self.collection)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lease, and leave to the next writer to check closely."""
        holder = Holder.this_process()
        with self.take_lease(holder) as lease:
            Ledger(lease, holder, self.collection)
            self.require_alone()
            yield

    # -- a copy of a folder that is read-only or an older one ----------------------------------------------------------

    def readable_copy(self, notify: Callable[[str], None]) -> AbstractContextManager[LocalFolder] | None:
        """Copy the database and the index, if Chroma would upgrade them, or if anything to be written is read-only."""
        lease, files = self.lease_path(), self._files()
        found = applied_migrations(self.path)
        if migrations.is_older(found):
            size = sum(size for size, _ in files.values())
            notify(
                f"reading a temporary copy of {-(-size >> 20)} MiB, since {migrations.writer(found)} wrote {self.path}"
            )
            return self._copied()
        needed = {self.path, *files, *(file.parent for file in files), *([lease] if lease.exists() else [])}
        is_read_only = bool(files) and not all(os.access(path, os.W_OK) for path in needed)
        return self._copied() if is_read_only else None

    @contextmanager
    def _copied(self) -> Iterator[LocalFolder]:
        """Copy into a temporary folder, change to it, and remove it in the end.

        Raises:
            TargetBusy: Another program kept writing to it.
            UpsertCliError: The temporary folder has no room for it, or a file cannot be read.
        """
        with tempfile.TemporaryDirectory(prefix="upsert-cli-", ignore_cleanup_errors=True) as name:
            copy = Path(name)
            for _ in range(COPIES):
                before = self._files()
                self._copy_to(copy, before)
                if self._files() == before:
                    break
            else:
                raise TargetBusy(path=str(self.path))
            os.chdir(copy)  # see `enter`
            try:
                yield LocalFolder(path=copy, collection=self.collection, is_copy=True)
            finally:
                os.chdir(self.path)  # the copy can be removed then

    def _files(self) -> dict[Path, tuple[int, int]]:
        """Return the files of database and index, each with its size in bytes and the time of its last change."""
        segments = [self.path / segment for segment in database.vector_segments(self.path, self.collection)]
        index = [file for segment in segments if segment.is_dir() for file in segment.iterdir()]
        stats = {file: file.stat() for file in (self.path / DATABASE_NAME, *index) if file.exists()}
        return {file: (status.st_size, status.st_mtime_ns) for file, status in stats.items()}

    def _copy_to(self, copy: Path, files: dict[Path, tuple[int, int]]) -> None:
        needed = sum(size for size, _ in files.values()) + RESERVE_BYTES
        free = shutil.disk_usage(copy).free
        if free < needed:
            raise disk_full(copy.parent, free=free, needed=needed)
        try:
            for file in files:
                to = copy / file.relative_to(self.path)
                to.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, to)  # not its mode, which may be that of a read-only file
        except OSError as error:
            raise os_fault(self.path, error) from error


def _named(openers: list[Opener]) -> str:
    return ", ".join(map(str, openers[:SHOWN_OPENERS]))
