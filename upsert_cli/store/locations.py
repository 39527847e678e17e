"""The one door to the stores: a target that the user types leads to a location, and a location opens a store.

Chroma is the only implementation. Another one is a package next to `chroma/` and a line in `location_at`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Protocol

from upsert_cli.errors import TargetInUse
from upsert_cli.locks import Holder
from upsert_cli.retry import RETRY_FOR
from upsert_cli.store.base import CollectionInfo, Opened, Store, Target
from upsert_cli.store.chroma.address import (
    SECRET_VARIABLES,
    canonical_target,
    is_server,
    names_folder,
    require_collection_name,
)
from upsert_cli.store.leasing import Ledger

__all__ = [
    "SECRET_VARIABLES",
    "Location",
    "canonical_target",
    "is_server",
    "location_at",
    "location_of",
    "names_folder",
    "require_collection_name",
]


class Location(Protocol):
    """Where a collection is: a folder, or a server, which looks after its own files."""

    is_shared: ClassVar[bool] = True
    """Whether it is a server, which others may write to at the same time."""

    def holder(self) -> Holder | None:
        """Return which upsert-cli has the lease now, or None; take and create nothing."""

    def in_use(self, holder: Holder) -> TargetInUse:
        """Return the error that names the holder of the lease."""

    def describe(self) -> CollectionInfo | None:
        """Return what the collection says about itself, without the store's library; None if it does not exist."""

    def list_collections(self) -> list[tuple[CollectionInfo, int]]:
        """Return all collections by name, each with its number of records, without the store's library."""

    # -- in the child process, in this order ---------------------------------------------------------------------------

    def enter(self) -> None:
        """Create the folders that are missing, and change to one where no .env file can redirect the library."""

    def lease_path(self) -> Path:
        """Return the lock file that keeps other loads out; `enter` has created its folder."""

    def open(
        self,
        target: Target,
        *,
        unclean: bool = False,
        rows: int | None = None,
        ledger: Ledger | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> tuple[Store, Opened]:
        """Open the collection, or create it.

        Args:
            target: What to open. Nobody else writes to it, unless it is only read.
            unclean: Whether the last writer did not end in order.
            rows: Rows that will be written at most, where that is known.
            ledger: Keeps what has to be restored after this process; needed for writing.
            notify: Called with a message about what is retried.

        Raises:
            Refusal: The collection was made with another model.
            UsageFault: The store does not accept its name.
            TargetDamaged: The index cannot be read, or does not hold what it should.
            UpsertCliError: The store cannot work with the location.
        """

    # -- the care that files need; a server needs none -----------------------------------------------------------------

    def require_space(self, rows: int) -> None:
        """Check that the disk has room for more rows and a reserve."""

    def check_index(self, target: Target, *, suspicious: bool) -> None:
        """Check the disk space and the index files; more closely if the last writer did not end in order."""

    def is_flushed(self) -> bool | None:
        """Tell whether the index files hold all records; None where that cannot be told."""
        return None

    def probe(self) -> None:
        """Check that no other program is writing to the database now."""

    def require_alone(self, *, parent: int = 0) -> None:
        """Check that no other program has the files open, so that none can write an older index over ours.

        The `parent` of a child process does not count: it may be reading the database.
        """

    def reading_flushes(self) -> bool:
        """Tell whether merely reading the collection would write its index, so that no load may run at that time."""
        return False

    def readable_copy(self) -> AbstractContextManager[Location] | None:
        """Return a temporary copy of a folder that cannot be written to; None if no copy is needed."""
        return None

    def take_poison(self) -> list[str]:
        """Remove the rows that block the store's queue for good, and return their ids."""
        return []

    def put_index_aside(self) -> list[str]:
        """Rename the folders of a damaged index, and return their new names."""
        return []


def location_at(chroma: str, collection: str, *, leases: Path, retry_for: float = RETRY_FOR) -> Location:
    """Return the location of a collection.

    Args:
        chroma: As `canonical_target` spells it.
        collection: Its name.
        leases: The folder for the leases on collections of servers.
        retry_for: How long to keep retrying failed server requests, in seconds.

    Raises:
        UsageFault: The address is not valid, or the credentials cannot be read.
    """
    if is_server(chroma):
        from upsert_cli.store.chroma.server import Server

        return Server.at(chroma, collection, leases=leases, retry_for=retry_for)
    from upsert_cli.store.chroma.local import LocalFolder

    return LocalFolder(path=Path(chroma), collection=collection)


def location_of(target: Target) -> Location:
    """Return the location of a target."""
    return location_at(target.path, target.collection, leases=Path(target.leases), retry_for=target.retry_for)
