"""A local folder as the location of a collection: Chroma works in our own process there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from upsert_cli.errors import LocksUnsupported, TargetInUse
from upsert_cli.locks import Holder, Lease
from upsert_cli.store.base import CollectionInfo, Opened, Target
from upsert_cli.store.chroma import database
from upsert_cli.store.chroma.faults import understood
from upsert_cli.store.chroma.index_check import check_rows
from upsert_cli.store.chroma.row_limits import NO_QUOTAS, Quotas
from upsert_cli.store.chroma.upkeep import FolderUpkeep
from upsert_cli.store.folder import LEASE_NAME, os_fault, prepare_folder

if TYPE_CHECKING:
    from upsert_cli.store.chroma.records import ChromaStore
    from upsert_cli.store.leasing import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFolder:
    """A folder; its lease covers all collections in it."""

    is_shared: ClassVar[bool] = False
    quotas: ClassVar[Quotas] = NO_QUOTAS

    path: Path
    """Absolute."""

    collection: str

    @property
    def upkeep(self) -> FolderUpkeep:
        """The care for the database and the index files."""
        return FolderUpkeep(path=self.path, collection=self.collection)

    def holder(self) -> Holder | None:
        """Return who has the folder; an unreadable lock file is reported when the lease is taken."""
        try:
            return Lease.peek(self.lease_path())
        except (OSError, LocksUnsupported):
            return None

    def in_use(self, holder: Holder) -> TargetInUse:
        """Name the folder, which is taken as a whole."""
        return TargetInUse(path=str(self.path), holder=str(holder))

    def describe(self) -> CollectionInfo | None:
        """Ask the database."""
        return database.describe(self.path, self.collection)

    def list_collections(self) -> list[tuple[CollectionInfo, int]]:
        """Ask the database."""
        return database.list_collections(self.path)

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
        rows: int | None = None,
        ledger: Ledger | None = None,
        notify: Callable[[str], None] = lambda _: None,  # noqa: ARG002  # nothing is retried
    ) -> tuple[ChromaStore, Opened]:
        """Check the files, and open the collection with Chroma's library."""
        from upsert_cli.store.chroma.client import connect_folder
        from upsert_cli.store.chroma.records import ChromaStore

        if not target.beside_others:
            self.upkeep.check(target, suspicious=unclean)
        if not target.examined:
            check_rows(target, self.path)
        with understood(target):
            client = connect_folder(str(self.path))
        return ChromaStore.open(target, self, client, unclean=unclean, rows=rows, ledger=ledger)

    def configuration(self, sync_threshold: int) -> dict[str, Any]:
        """Return the settings of a new collection: cosine, and after how many rows to flush."""
        return {"hnsw": {"space": "cosine", "sync_threshold": sync_threshold}}
