"""A folder as the place of a collection: Chroma works in our own process there, and nobody else may write meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from upsert_cli.errors import TargetBusy, TargetInUse, TargetOpen
from upsert_cli.locks import Holder
from upsert_cli.store.base import CollectionInfo, Target
from upsert_cli.store.chroma import database, folder, index_repair, snapshot
from upsert_cli.store.chroma.client import connect_folder
from upsert_cli.store.chroma.index_check import check_files, check_rows
from upsert_cli.store.chroma.openers import Opener, find_openers
from upsert_cli.store.chroma.quotas import NO_QUOTAS, Quotas

if TYPE_CHECKING:
    from chromadb.api.client import Client

SHOWN_OPENERS = 3  # processes that a message names


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFolder:
    """See `place.Place`."""

    is_shared: ClassVar[bool] = False
    quotas: ClassVar[Quotas] = NO_QUOTAS

    path: Path
    """Absolute."""

    collection: str

    def holder(self) -> Holder | None:
        """Returns who has the folder."""
        return folder.holder_of(self.path)

    def reading_flushes(self) -> bool:
        """Asks the database how much is queued for the index files."""
        return database.reading_flushes(self.path, self.collection)

    def described(self) -> tuple[str, int | None, dict[str, Any], str] | None:
        """Returns what the database says of the collection."""
        return database.described(self.path, self.collection)

    def listed(self) -> list[CollectionInfo]:
        """Asks the database for all collections."""
        return database.listed(self.path)

    def enter(self) -> None:
        """Makes the folder and moves into it."""
        if folder.prepare_folder(self.path):
            os.umask(0o077)  # what Chroma makes in it is to be as private
        try:
            os.chdir(self.path)  # chromadb reads the .env file of the working folder when it is imported
        except OSError as error:
            raise folder.unusable(self.path, error) from error

    def lease_path(self) -> Path:
        """Returns the file in the folder itself: all who load into it see it, whatever their journal."""
        return self.path / folder.LEASE_NAME

    def in_use(self, holder: Holder) -> TargetInUse:
        """Names the folder, which is taken as a whole."""
        return TargetInUse(path=str(self.path), holder=str(holder))

    def probe(self) -> None:
        """Finds a foreign writer, for whom Chroma would wait for a quarter of an hour."""
        try:
            database.probe_writer(self.path)
        except TargetBusy as error:
            openers = find_openers(self.path, patience=0.0)
            raise TargetBusy(path=str(self.path), program=_named(openers)) from error

    def require_alone(self, *, parent: int = 0) -> None:
        """Looks for processes that have the files open, and for a writer that cannot be seen."""
        openers = [opener for opener in find_openers(self.path) if opener.pid != parent]
        self.probe()
        if openers:
            raise TargetOpen(path=str(self.path), program=_named(openers))

    def readable_copy(self) -> AbstractContextManager[LocalFolder] | None:
        """Copies the database and the index of the collection, if anything of them cannot be written."""
        if not snapshot.is_read_only(self.path, self.collection):
            return None
        return self._copied()

    @contextmanager
    def _copied(self) -> Iterator[LocalFolder]:
        with snapshot.copied(self.path, self.collection) as copy:
            os.chdir(copy)  # see `enter`
            try:
                yield replace(self, path=copy)
            finally:
                os.chdir(self.path)  # the copy can be removed then

    def check(self, target: Target, *, suspicious: bool) -> None:
        """Looks at room and index files."""
        self.require_space(0)
        check_files(target, self.path, suspicious=suspicious)

    def check_rows(self, target: Target) -> None:
        """Compares the database with the index files."""
        check_rows(target, self.path)

    def connect(self, told: Callable[[str], None]) -> Client:  # noqa: ARG002  # nothing is tried again
        """Opens the folder."""
        return connect_folder(str(self.path))

    def configuration(self, sync_threshold: int) -> dict[str, Any]:
        """Returns cosine, and when to flush."""
        return {"hnsw": {"space": "cosine", "sync_threshold": sync_threshold}}

    def require_space(self, rows: int) -> None:
        """Looks at the disk."""
        folder.require_space(self.path, rows=rows)

    def is_flushed(self, collection_id: str) -> bool | None:
        """Asks the database."""
        return database.is_flushed(self.path, collection_id)

    def take_poison(self, target: Target) -> list[str]:
        """Mends the database's queue."""
        return index_repair.take_poison(target, self.require_alone)

    def put_index_aside(self, target: Target) -> list[str]:
        """Renames the folders of the index."""
        return index_repair.put_index_aside(target, self.require_alone)


def _named(openers: list[Opener]) -> str:
    return ", ".join(map(str, openers[:SHOWN_OPENERS]))
