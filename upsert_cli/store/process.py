"""A store in a child process: each call is a message to it.

Chroma's engine holds the interpreter's lock for the whole of a write, may take seconds, and can end in a segmentation
fault on a damaged index. In a process of its own it overlaps with embedding, and its death is an error message.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from upsert_cli.bisect import failing_rows
from upsert_cli.context import RunContext, Unattended
from upsert_cli.errors import LocksUnsupported
from upsert_cli.store.base import (
    CheckedRecords,
    Comparison,
    QueryHit,
    Record,
    RecordRef,
    RecordRefPage,
    Store,
    Target,
    WriteBatch,
)
from upsert_cli.store.child import Call, Serve, Start, serve
from upsert_cli.store.locations import location_of
from upsert_cli.store.restarting import TRIES, RestartingChild
from upsert_cli.store.spawn import ProcessDied

if TYPE_CHECKING:
    from upsert_cli.store.base import Vectors

P = ParamSpec("P")
R = TypeVar("R")

CALL_ROWS = 512  # rows a call, which nothing interrupts: 3.6 s of CPU where all replace others, else 1.3 s
TRIES_ALONE = 2  # tries of one row before it is blamed; one death might have another cause
MAX_DEATHS = 32  # in one write; a row that kills is found after 13, and beyond this no row is to blame


class StoreProcess(RestartingChild):
    """A `Store` in a child process, which is started again when it dies."""

    @classmethod
    def start(
        cls,
        target: Target,
        *,
        task_id: str | None = None,
        rows: int | None = None,
        verbose: bool = False,
        lease_timeout: float = 0.0,
        context: RunContext | None = None,
        serve: Serve = serve,
    ) -> StoreProcess:
        """Start the process and return at once; `opened` waits for it.

        Args:
            target: What to open.
            task_id: Shown to others who want the folder.
            rows: Rows that will be written at most, where that is known.
            verbose: Whether the process may write to standard error.
            lease_timeout: Seconds to wait for another holder of the folder.
            context: Checked at least every `POLL_SECONDS` while the main thread waits; told what is retried.
            serve: What the process does; a function that can be imported.

        Raises:
            LocksUnsupported: The system cannot keep signals and other writers away.
        """
        if not hasattr(signal, "pthread_sigmask"):
            raise LocksUnsupported(path=target.path)
        start = Start(
            target=target,
            location=location_of(target),
            task_id=task_id,
            rows=rows,
            lease_timeout=lease_timeout,
            serve=serve,
        )
        return cls(start, verbose=verbose, context=context or Unattended())

    def helper(self) -> StoreProcess:
        """Start another writer to a server's collection; this one is open, has the lease and outlives it."""
        target = replace(self._start.target, as_found=True, beside_others=True)
        start = replace(self._start, target=target, rows=None, lease_timeout=0.0)
        return StoreProcess(start, verbose=self._verbose, context=self._context)

    def compare(self, ids: list[str], hashes: list[str], keys: list[tuple[str, ...]]) -> Comparison:
        """Compare documents with their records."""
        with self._working("comparing"):
            return self._call(Store.compare, ids, hashes, keys)

    def find_stale_chunks(self, chunks: Mapping[str, int], *, average: bool) -> dict[str, list[RecordRef]]:
        """Return the records that are no longer part of their items."""
        with self._working("comparing"):
            return self._call(Store.find_stale_chunks, chunks, average=average)

    def write(self, upserts: WriteBatch, updates: WriteBatch) -> list[tuple[str, str]]:
        """Write all rows except those that are at fault themselves, `CALL_ROWS` at a time.

        A row that ends the process is found by bisecting, and is at fault as well. The context is checked after each
        part but the last; if it raises, the rest is not written.
        """
        updates = replace(updates, texts=[])
        rows = range(len(upserts.ids) + len(updates.ids))
        refused: list[tuple[str, str]] = []
        with self._working("writing"):
            for start in range(0, len(rows), CALL_ROWS):
                if start:
                    self._context.check()
                refused += self._write_part(*_take(upserts, updates, rows[start : start + CALL_ROWS]))
        return refused

    def _write_part(self, upserts: WriteBatch, updates: WriteBatch) -> list[tuple[str, str]]:
        ids = [*upserts.ids, *updates.ids]
        refused: list[tuple[str, str]] = []
        most = self._deaths + MAX_DEATHS

        def write(rows: Sequence[int]) -> None:
            tries = TRIES if len(rows) == len(ids) else TRIES_ALONE if len(rows) == 1 else 1
            refused.extend(self._ask(Call("write", _take(upserts, updates, rows)), tries=tries))

        def may_blame_a_row(error: BaseException) -> bool:
            return isinstance(error, ProcessDied) and self._deaths < most

        failing = failing_rows(range(len(ids)), write, is_data_fault=may_blame_a_row)
        refused += [(ids[row], f"the process that writes it ends by {death}") for row, death in failing]
        return refused

    def delete(self, members: Sequence[RecordRef]) -> list[str]:
        """Delete records that have not changed, `CALL_ROWS` at a time; the context is checked in between."""
        changed: list[str] = []
        for start in range(0, len(members), CALL_ROWS):
            if start:
                self._context.check()
            with self._working():
                changed += self._call(Store.delete, members[start : start + CALL_ROWS])
        return changed

    def fetch(self, ids: list[str] | None = None, *, start: int = 0, rows: int = 0) -> list[Record]:
        """Return the records with these ids, or `rows` records from number `start` on."""
        with self._working():
            return self._call(Store.fetch, ids, start=start, rows=rows)

    def members(self, scope: str, *, start: int, rows: int) -> RecordRefPage:
        """Return the records of a scope."""
        with self._working():
            return self._call(Store.members, scope, start=start, rows=rows)

    def check(self, *, start: int, rows: int, every: int, identity: str | None) -> CheckedRecords:
        """Read records back with their vectors.

        Raises:
            TargetDamaged: Reading them ends the process, or the index cannot be read at all.
        """
        return self._read(Store.check, start=start, rows=rows, every=every, identity=identity)

    def query(self, vector: Vectors, *, rows: int, where: dict[str, Any] | None) -> list[QueryHit]:
        """Return the records nearest to a vector.

        Raises:
            TargetDamaged: Reading them ends the process, or the index cannot be read at all.
        """
        return self._read(Store.query, vector, rows=rows, where=where)

    def close(self) -> None:
        """Flush the index, and wait for the process to end: the folder is then free."""
        with self._working():
            self._ask(Call("close"), tries=TRIES)
            if self._process is not None:
                with suppress(subprocess.TimeoutExpired):  # the folder is free already
                    self._process.join()

    def _call(self, method: Callable[Concatenate[Store, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a method of the store in the child."""
        return cast("R", self._ask(Call(method.__name__, args, kwargs), tries=TRIES))

    def _read(self, method: Callable[Concatenate[Store, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a method that reads the index, where the death of the process means that it is damaged."""
        with self._working():
            try:
                return cast("R", self._ask(Call(method.__name__, args, kwargs), tries=TRIES_ALONE))
            except ProcessDied as death:
                raise self._unreadable(death) from death


def _take(upserts: WriteBatch, updates: WriteBatch, rows: Sequence[int]) -> tuple[WriteBatch, WriteBatch]:
    """Return some of the rows, which are numbered through both."""
    border = len(upserts.ids)
    if len(rows) == border + len(updates.ids):
        return upserts, updates
    return (
        upserts.take([row for row in rows if row < border]),
        updates.take([row - border for row in rows if row >= border]),
    )
