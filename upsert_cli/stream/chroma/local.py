"""A folder as the place of a collection: Chroma works in our own process there, and nobody else may write meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from upsert_cli.errors import TargetInUse
from upsert_cli.leases import Holder
from upsert_cli.stream.chroma import damage, database, folder
from upsert_cli.stream.chroma.client import connect_folder
from upsert_cli.stream.chroma.quotas import NO_QUOTAS, Quotas
from upsert_cli.stream.chroma.rows import Listed, Target
from upsert_cli.stream.chroma.soundness import check_files

if TYPE_CHECKING:
    from chromadb.api.client import Client


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

    def listed(self) -> list[Listed]:
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
        database.probe_writer(self.path)

    def check(self, target: Target, *, suspicious: bool) -> None:
        """Looks at room and index files."""
        self.require_space(0)
        check_files(target, suspicious=suspicious)

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
        return damage.take_poison(target)

    def put_index_aside(self, target: Target) -> list[str]:
        """Renames the folders of the index."""
        return damage.put_index_aside(target)
