"""Take the lease of a folder or of a server's collection, and wait where its holder is about to end.

The holder is a writer's process. It outlives a command that was killed by one write, and frees the lease after that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from upsert_cli.locks import Holder, Lease, LeaseHeld

ENDING_SECONDS = 15.0  # seconds that the writer of a dead command may take to end; one write takes at most 4
LEASE_STEP = 0.1  # seconds between two calls of `look_around`


def take_lease(
    path: Path,
    holder: Holder,
    *,
    timeout: float = 0.0,
    given_up: int = 0,
    look_around: Callable[[Holder], None] = lambda _: None,
) -> Lease:
    """Take the lease, and wait for a holder that is ending by itself.

    Args:
        path: The file of the lease.
        holder: The facts to write into it.
        timeout: Seconds to wait for any other holder.
        given_up: A process that has given up all writers that it started.
        look_around: Called with the present holder every `LEASE_STEP` seconds or so; may raise to give up.

    Raises:
        LeaseHeld: Somebody has it still.
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
            look_around(error.holder)


def await_orphan(holder: Callable[[], Holder | None], look_around: Callable[[], None] = lambda: None) -> Holder | None:
    """Return who has a lease, once that is not a writer whose command has died; this takes no lease."""
    until = time.monotonic() + ENDING_SECONDS
    while (found := holder()) is not None and found.is_orphan() and time.monotonic() < until:
        look_around()
        time.sleep(LEASE_STEP)
    return found
