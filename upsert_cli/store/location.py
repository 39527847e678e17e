"""The interface of a location, a folder or a server: its lease, and how a collection is described and opened there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar, Protocol

from upsert_cli.errors import LocksUnsupported, TargetBusy, TargetInUse
from upsert_cli.leases import Holder, Lease, LeaseHeld
from upsert_cli.store.base import NumberedRecords, Record, Store
from upsert_cli.store.folder import os_fault
from upsert_cli.store.target import CollectionInfo, CollectionState, Opened, Target

ENDING_SECONDS = 15.0  # seconds that the child of a dead command may take to end; one write takes at most 4
LEASE_STEP = 0.1  # seconds between two tries for a lease that is taken
WRITER_SECONDS = 5.0  # seconds that others may write without a pause before a reader gives up


class Location(Protocol):
    """The place of a collection: a folder, or a server, which takes care of its files itself."""

    is_shared: ClassVar[bool] = True
    """Whether others may write at the same time, as on a server."""

    def in_use(self, holder: Holder) -> TargetInUse:
        """Return the error that names the holder of the lease."""

    def describe(self) -> CollectionInfo | None:
        """Return the collection's description, without the store's library; None if it does not exist."""

    def require_lists(self) -> None:
        """Check that the store takes lists in metadata; a `Refusal` is raised if it does not."""

    def list_collections(self) -> list[tuple[CollectionInfo, int]]:
        """Return all collections by name, each with its number of records, without the store's library."""

    def state(self) -> CollectionState | None:
        """Return the collection's state, without the store's library; None if it does not exist."""

    def has_chunks(self) -> bool:
        """Return whether the collection may hold chunks of items, without the store's library."""

    def numbered_records(self) -> NumberedRecords | None:
        """Return the records of a collection in a folder; None if it does not exist."""
        return None

    def fetching(self, *, with_vectors: bool) -> AbstractContextManager[Callable[..., list[Record]]] | None:  # noqa: ARG002
        """Return a function like `Store.fetch` that asks a server without the store's library; None for a folder."""
        return None

    def lease_path(self) -> Path:
        """Return the lock file that keeps other loads out; `enter` has created its folder."""

    # -- the lease: its holder is a child process, which outlives a killed command by one write ------------------------

    def holder(self) -> Holder | None:
        """Return the upsert-cli that has the lease now, or None; neither take nor create it."""
        try:
            return Lease.peek(self.lease_path())
        except (OSError, LocksUnsupported):
            return None  # taking the lease fails for the same reason, and reports it

    def await_orphan(self, check: Callable[[], None]) -> Holder | None:
        """Wait while the holder is the child of a dead command, and return the holder after that, or None."""
        until = time.monotonic() + ENDING_SECONDS
        while (found := self.holder()) is not None and found.is_orphan() and time.monotonic() < until:
            check()
            time.sleep(LEASE_STEP)
        return found

    def await_writer(self, check: Callable[[], None]) -> None:
        """Wait for a moment in which no program writes to the database; Chroma itself would wait for 1,000 seconds.

        `check` is called between two tries, and may raise to give up.

        Raises:
            TargetBusy: A program has been writing for `WRITER_SECONDS`.
        """
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
        """Take the lease; wait `timeout` seconds for its holder, or `ENDING_SECONDS` if the holder is about to end.

        `check` is called with the present holder about every `LEASE_STEP` seconds, and may raise to give up.

        Raises:
            TargetInUse: Another process still has the lease.
            UpsertCliError: The lock file cannot be opened, written or locked.
        """
        began = time.monotonic()
        while True:
            try:
                return Lease.take(self.lease_path(), holder, timeout=min(timeout, LEASE_STEP))
            except LeaseHeld as error:
                other = error.holder
                # If the holder is a child of this process, it was abandoned.
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
            target: The collection; no other program writes to it, unless it is only read.
            unclean: Whether the last writer died or failed.
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
        """Return, by id, the `upsert_hash` of each record that may differ from the given one; empty if not known.

        Called in another process than the one that has the collection open, which has the lease and is idle.
        """
        return dict.fromkeys(hashes, "")  # a server is asked

    def probe(self) -> None:
        """Check that no other program is writing to the database now."""

    def require_alone(self, *, parent: int = 0) -> None:
        """Check that no other program has the files open and could write an older index over ours.

        The `parent` of a child process does not count, since it may be reading the database.
        """

    def reading_flushes(self) -> bool:
        """Return whether Chroma would write the index even if the collection is only read."""
        return False

    def readable_copy(self, notify: Callable[[str], None]) -> AbstractContextManager[Location] | None:  # noqa: ARG002
        """Return a temporary copy of a folder that Chroma would change or could not open; None for any other."""
        return None

    def take_poison(self) -> list[str]:
        """Remove the rows that block the store's queue forever, and return their ids."""
        return []

    def put_index_aside(self) -> list[str]:
        """Rename the folders of a damaged index, and return their new names."""
        return []
