"""A local folder as the location of a collection, which Chroma's library opens in our child process.

A folder needs care: no other program at its files, enough disk space, a sound index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from upsert_cli.errors import Refusal, TargetBusy, TargetInUse, UpsertCliError
from upsert_cli.leases import Holder, Lease
from upsert_cli.store.chroma.database import describe, describe_all, reading, writing
from upsert_cli.store.chroma.index_files import IndexFiles
from upsert_cli.store.chroma.tables import RecordTables, changed_hashes
from upsert_cli.store.chroma.upgrade import connect_upgraded, readable_copy
from upsert_cli.store.folder import (
    DATABASE_NAME,
    LEASE_NAME,
    enter_folder,
    find_openers,
)
from upsert_cli.store.location import Location
from upsert_cli.store.target import CollectionInfo, CollectionState, Opened, Target

if TYPE_CHECKING:
    from upsert_cli.store.chroma.records import ChromaStore

SHOWN_OPENERS = 3  # processes that a message names


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFolder(Location):
    """A folder; its lease covers all collections in it."""

    is_shared: ClassVar[bool] = False

    path: Path
    """An absolute path."""

    collection: str
    is_copy: bool = False
    """Whether it is a temporary copy."""

    @property
    def index(self) -> IndexFiles:
        """The index of the collection."""
        return IndexFiles(self.path, self.collection)

    def in_use(self, holder: Holder) -> TargetInUse:
        """Return the error for the whole folder."""
        return TargetInUse(path=str(self.path), holder=str(holder))

    def describe(self) -> CollectionInfo | None:
        """Ask the database."""
        with reading(self.path) as database:
            return describe(database, self.collection)

    def require_lists(self) -> None:
        """Do nothing, since the installed Chroma stores lists."""

    def list_collections(self) -> list[tuple[CollectionInfo, int]]:
        """Read them from the database, which has to exist."""
        with reading(self.path) as database:
            if not (self.path / DATABASE_NAME).is_file():
                raise UpsertCliError(
                    message=f"there is no Chroma in {self.path}; --chroma names another folder, `upsert-cli run` makes "
                    f"one"
                )
            return describe_all(database)

    def state(self) -> CollectionState | None:
        """Ask the database."""
        found = self.numbered_records()
        return None if found is None else found.state

    def has_chunks(self) -> bool:
        """Search the tables."""
        tables = self.numbered_records()
        return tables is not None and tables.has_chunks()

    def numbered_records(self) -> RecordTables | None:
        """Return the tables and the changes that are queued for them."""
        return RecordTables.find(self.path, self.collection)

    def enter(self) -> None:
        """Enter the folder itself."""
        enter_folder(self.path)

    def lease_path(self) -> Path:
        """Return a file in the folder itself, which loads with any journal see."""
        return self.path / LEASE_NAME

    def open(
        self,
        target: Target,
        *,
        unclean: bool = False,
        lease: Lease | None = None,
        notify: Callable[[str], None] = lambda _: None,  # noqa: ARG002  # nothing is retried
    ) -> tuple[ChromaStore, Opened]:
        """Check the files, and open the collection with Chroma's library."""
        from upsert_cli.store.chroma.records import ChromaStore

        if not (target.beside_others or target.as_a_whole):
            self.index.require_space()
            self.index.check(target, suspicious=unclean)
        if not (target.examined or target.as_a_whole):
            self.index.check_rows(target)
        client, upgrade = connect_upgraded(self.path, target, is_copy=self.is_copy)
        store = ChromaStore(target, self, client, index=self.index, unclean=unclean, lease=lease)
        return store, replace(store.opened, upgrade=upgrade)

    def changed_hashes(self, hashes: Mapping[str, str]) -> dict[str, str]:
        """Ask the database."""
        return changed_hashes(self.path, self.collection, hashes)

    # -- other programs ------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """Check that no other program writes, for which Chroma would wait for a quarter of an hour."""
        try:
            if (self.path / DATABASE_NAME).exists():
                with writing(self.path):
                    pass  # no other program writes
        except TargetBusy as error:
            raise TargetBusy(path=str(self.path), program=_named(find_openers(self.path, patience=0.0))) from error

    def require_alone(self, *, parent: int = 0) -> None:
        """Search for processes that have the files open, and probe for a writer that is invisible."""
        openers = find_openers(self.path)
        openers.pop(parent, None)
        self.probe()
        if openers:
            raise Refusal(
                message=f"{self.path} is open in {_named(openers)}, which may write its older index over a loaded "
                f"one; nothing was written: stop it, then try again, or, if it is a Chroma server, load through it "
                f"with --chroma http://HOST:PORT"
            )

    def reading_flushes(self) -> bool:
        """Compare the number of queued rows with the threshold for a flush."""
        return self.index.reading_flushes()

    # -- repair --------------------------------------------------------------------------------------------------------

    def take_poison(self) -> list[str]:
        """Remove the rows from the collection's queue that the engine can never apply."""
        with self._repairing():
            return self.index.take_poison()

    def put_index_aside(self) -> list[str]:
        """Rename the folder of the collection's index; nothing is deleted."""
        with self._repairing():
            return self.index.put_aside()

    @contextmanager
    def _repairing(self) -> Iterator[None]:
        """Hold the lease, with no other program at the files; the next holder then checks the index closely."""
        with self.take_lease(Holder.this_process()):
            self.require_alone()
            yield

    def readable_copy(self, notify: Callable[[str], None]) -> AbstractContextManager[LocalFolder] | None:
        """Return a copy of an older or a read-only folder."""
        copy = readable_copy(self.index, notify)
        return None if copy is None else self._at(copy)

    @contextmanager
    def _at(self, copy: AbstractContextManager[Path]) -> Iterator[LocalFolder]:
        """Yield the same collection in a copy of the folder."""
        with copy as path:
            yield replace(self, path=path, is_copy=True)


def _named(openers: dict[int, str]) -> str:
    return ", ".join(f"pid {pid} ({program})" for pid, program in [*openers.items()][:SHOWN_OPENERS])
