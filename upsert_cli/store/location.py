"""The seam to the place of a collection, a folder or a server: its lease, and how it is described, read and opened."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from upsert_cli.errors import LocksUnsupported, TargetBusy, TargetInUse
from upsert_cli.locks import Holder, Lease, LeaseHeld
from upsert_cli.store.base import Record, Store
from upsert_cli.store.folder import os_fault
from upsert_cli.store.target import CollectionInfo, CollectionState, Opened, Target

if TYPE_CHECKING:
    from upsert_cli.store.chroma.tables import RecordTables

ENDING_SECONDS = 15.0  # seconds that the child of a dead command may take to end; one write takes at most 4
LEASE_STEP = 0.1  # seconds between two looks at a lease that somebody else has
WRITER_SECONDS = 5.0  # seconds that others may write without a pause before a reader gives up


class Location(Protocol):
    """Where a collection is: a folder, or a server, which looks after its own files."""

    is_shared: ClassVar[bool] = True
    """Whether it is a server, which others may write to at the same time."""

    def in_use(self, holder: Holder) -> TargetInUse:
        """Return the error that names the holder of the lease."""

    def describe(self) -> CollectionInfo | None:
        """Return the collection's description, without the store's library; None if it does not exist."""

    def require_lists(self) -> None:
        """Check that metadata may have lists, before anything is written; a `Refusal` is raised if it may not."""

    def list_collections(self) -> list[tuple[CollectionInfo, int]]:
        """Return all collections by name, each with its number of records, without the store's library."""

    def state(self) -> CollectionState | None:
        """Return the collection's state, without the store's library; None if it does not exist."""

    def has_chunks(self) -> bool:
        """Tell whether the collection may hold chunks of items, without the store's library."""

    def tables(self) -> RecordTables | None:
        """Return the tables with all records of a collection in a folder; None if it does not exist."""
        return None

    def fetching(self, *, with_vectors: bool) -> AbstractContextManager[Callable[..., list[Record]]] | None:  # noqa: ARG002
        """Return a function like `Store.fetch` that asks a server without the store's library; None for a folder."""
        return None

    def lease_path(self) -> Path:
        """Return the lock file that keeps other loads out; `enter` has created its folder."""

    # -- the lease: its holder is a child process, which outlives a killed command by one write ------------------------

    def holder(self) -> Holder | None:
        """Return which upsert-cli has the lease now, or None; take and create nothing."""
        try:
            return Lease.peek(self.lease_path())
        except (OSError, LocksUnsupported):
            return None  # taking the lease fails for the same reason, and reports it

    def await_orphan(self, check: Callable[[], None]) -> Holder | None:
        """Wait while the holder is the child of a dead command, and return who has the lease then; take none."""
        until = time.monotonic() + ENDING_SECONDS
        while (found := self.holder()) is not None and found.is_orphan() and time.monotonic() < until:
            check()
            time.sleep(LEASE_STEP)
        return found

    def await_writer(self, check: Callable[[], None]) -> None:
        """Wait for a moment in which nobody writes to the database: Chroma would wait for 1,000 seconds."""
        until = time.monotonic() + WRITER_SECONDS
        while True:
            try:
                return self.probe()
            except TargetBusy:
                if time.monotonic() >= until:
                    raise
            check()

    def take_lease(
        self, holder: Holder, *, timeout: float = 0.0, check: Callable[[Holder], None] = lambda _: None
    ) -> Lease:
        """Take the lease, and wait for a holder that is ending by itself, or for any other one until a timeout.

        `check` is called with the present holder about every `LEASE_STEP` seconds, and may raise to give up.

        Raises:
            TargetInUse: Somebody else still has it.
            UpsertCliError: The file cannot be opened, written or locked.
        """
        began = time.monotonic()
        while True:
            try:
                return Lease.take(self.lease_path(), holder, timeout=min(timeout, LEASE_STEP))
            except LeaseHeld as error:
                other = error.holder
                # A child that works for this process can only be one that was abandoned.
                is_ending = other.parent == os.getpid() or other.is_orphan()
                if time.monotonic() - began >= max(timeout, ENDING_SECONDS if is_ending else 0.0):
                    raise self.in_use(other) from error
            except OSError as error:
                raise os_fault(self.lease_path(), error) from error
            check(other)

    # -- in the child process, in this order ---------------------------------------------------------------------------

    def enter(self) -> None:
        """Create the folders that are missing, and change to one where no .env file can redirect the library."""

    def open(
        self,
        target: Target,
        *,
        unclean: bool = False,
        lease: Lease | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> tuple[Store, Opened]:
        """Open the collection, or create it.

        Args:
            target: What to open. Nobody else writes to it, unless it is only read.
            unclean: Whether the last writer did not end in order.
            lease: The lease of this process, which records the settings to restore; needed for writing.
            notify: Called with a message about a retry.

        Raises:
            Refusal: The collection was made with another model.
            UsageFault: The store does not accept its name.
            TargetDamaged: The index cannot be read, or lacks records.
            UpsertCliError: The store cannot work with the location.
        """

    # -- the care that files need; a server needs none -----------------------------------------------------------------

    def changed_hashes(self, hashes: Mapping[str, str]) -> Mapping[str, str]:
        """Return, by id, the `upsert_hash` of each record that may not have the given one; empty if it is not known.

        Called outside the process that has the collection open, while that process has the lease and writes nothing.
        """
        return dict.fromkeys(hashes, "")  # a server is asked

    def probe(self) -> None:
        """Check that no other program is writing to the database now."""

    def require_alone(self, *, parent: int = 0) -> None:
        """Check that no other program has the files open, so that none can write an older index over ours.

        The `parent` of a child process does not count: it may be reading the database.
        """

    def reading_flushes(self) -> bool:
        """Tell whether merely reading the collection would write its index, so that no load may run at that time."""
        return False

    def readable_copy(self, notify: Callable[[str], None]) -> AbstractContextManager[Location] | None:  # noqa: ARG002
        """Return a temporary copy of a folder that cannot be opened without a change; None if no copy is needed."""
        return None

    def take_poison(self) -> list[str]:
        """Remove the rows that block the store's queue for good, and return their ids."""
        return []

    def put_index_aside(self) -> list[str]:
        """Rename the folders of a damaged index, and return their new names."""
        return []
