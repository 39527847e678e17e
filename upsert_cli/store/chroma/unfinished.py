"""What a writer has to put in order before it lets go of a folder, kept in the file of its lease for the next one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from upsert_cli.locks import Holder, Lease


class UnfinishedWork:
    """The notes of one holder of a lease."""

    def __init__(self, lease: Lease, holder: Holder, collection: str) -> None:
        """Writes down who holds the lease, and what others left to put in order for its collection."""
        self._lease = lease
        self._holder = holder
        self._collection = collection
        lease.write(holder)

    @property
    def owed(self) -> int | None:
        """The collection's own threshold, which a writer that died did not put back."""
        return self._holder.owed.get(self._collection)

    def write_down(self, threshold: int | None) -> None:
        """Remembers a threshold that is about to be changed, or that it was put back."""
        others = {name: value for name, value in self._holder.owed.items() if name != self._collection}
        owed = others if threshold is None else others | {self._collection: threshold}
        if owed != self._holder.owed:
            self._holder = replace(self._holder, owed=owed)
            self._lease.write(self._holder)

    def close(self, *, clean: bool) -> None:
        """Writes down whether the next writer may trust what it finds."""
        with suppress(OSError):  # a disk that is full costs the next writer a closer look, no more
            self._lease.write(replace(self._holder, clean=clean))
