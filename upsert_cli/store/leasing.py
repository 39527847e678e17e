"""The lease on a folder or on a server's collection, and what its holder leaves to the next one.

The holder is the child process. It outlives a command that was killed by one write, and frees the lease after that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from upsert_cli.locks import Holder, Lease, LeaseHeld

ENDING_SECONDS = 15.0  # seconds that the child of a dead command may take to end; one write takes at most 4
LEASE_STEP = 0.1  # seconds between two calls of `check`


def take_lease(
    path: Path,
    holder: Holder,
    *,
    timeout: float = 0.0,
    given_up: int = 0,
    check: Callable[[Holder], None] = lambda _: None,
) -> Lease:
    """Take the lease, and wait for a holder that is ending by itself.

    Args:
        path: The file of the lease.
        holder: The facts to write into it.
        timeout: Seconds to wait for any other holder.
        given_up: A process that has abandoned all its children.
        check: Called with the present holder about every `LEASE_STEP` seconds; may raise to give up.

    Raises:
        LeaseHeld: Somebody else still has it.
        LocksUnsupported: The system has no flock.
        OSError: The file cannot be opened or written.
    """
    began = time.monotonic()
    while True:
        try:
            return Lease.take(path, holder, timeout=min(timeout, LEASE_STEP))
        except LeaseHeld as error:
            is_ending = (given_up and error.holder.parent == given_up) or error.holder.is_orphan()
            if time.monotonic() - began >= max(timeout, ENDING_SECONDS if is_ending else 0.0):
                raise
            check(error.holder)


def await_orphan(holder: Callable[[], Holder | None], check: Callable[[], None] = lambda: None) -> Holder | None:
    """Wait while the holder of a lease is the child of a dead command, and return who has it then; take no lease."""
    until = time.monotonic() + ENDING_SECONDS
    while (found := holder()) is not None and found.is_orphan() and time.monotonic() < until:
        check()
        time.sleep(LEASE_STEP)
    return found


class Ledger:
    """What a holder of a lease still has to restore, kept in the lock file for the next holder."""

    def __init__(self, lease: Lease, holder: Holder, collection: str) -> None:
        """Write down who holds the lease, and keep what earlier holders did not restore."""
        before = lease.before or replace(holder, clean=True)
        self.was_clean = before.clean
        """Whether the last holder ended in order."""

        self._lease = lease
        self._holder = replace(holder, owed=before.owed)
        self._collection = collection
        lease.write(self._holder)

    @property
    def owed(self) -> int | None:
        """The collection's own sync threshold, if a holder that died did not restore it."""
        return self._holder.owed.get(self._collection)

    def owe(self, threshold: int | None) -> None:
        """Remember a threshold that is about to be changed; None once it is restored."""
        others = {name: value for name, value in self._holder.owed.items() if name != self._collection}
        owed = others if threshold is None else others | {self._collection: threshold}
        if owed != self._holder.owed:
            self._holder = replace(self._holder, owed=owed)
            self._lease.write(self._holder)

    def close(self, *, clean: bool) -> None:
        """Write down whether the next holder may trust what it finds."""
        with suppress(OSError):  # on a full disk the next holder looks more closely, that is all
            self._lease.write(replace(self._holder, clean=clean))
