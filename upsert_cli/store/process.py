"""A collection that is open for writing in another process: each call is a request to it.

Chroma's engine holds the interpreter's lock for the whole of a write, may take seconds, and can end in a segmentation
fault on a damaged index. In a process of its own it overlaps with embedding, and its death is an error message.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from upsert_cli.bisect import failing_rows
from upsert_cli.errors import LocksUnsupported
from upsert_cli.store import child
from upsert_cli.store.base import (
    CheckedRecords,
    Comparison,
    Leased,
    Opened,
    QueryHit,
    Record,
    RecordRef,
    RecordRefPage,
    Target,
    WriteBatch,
)
from upsert_cli.store.locations import location_of
from upsert_cli.store.requests import Compare, Delete, Fetch, FindLeftovers, Members, Query, ReadBack, Work, Write
from upsert_cli.store.spawn import ProcessDied
from upsert_cli.store.supervisor import TRIES, TRIES_ALONE, Supervisor

if TYPE_CHECKING:
    from upsert_cli.store.base import Vectors

Result = TypeVar("Result")

CALL_ROWS = 512  # rows a request, which nothing interrupts: 3.6 s of CPU where all replace others, else 1.3 s
MAX_DEATHS = 32  # in one write; a row that kills is found after 13, and beyond this no row is to blame
LAST_WRITE_SECONDS = 3.0  # seconds to wait for the process at an early end; CI systems grant 7.5 s in all


class StoreProcess:
    """A collection that is open for writing in another process.

    Calls may come from several threads; one at a time is carried out. A call that waits on the main thread calls the
    `wait` hook meanwhile. If the hook raises while an answer is due, the writer is abandoned: what is being written or
    flushed is finished, but nobody learns of it.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        """Starts nothing yet; use `start`."""
        self._supervisor = supervisor
        self.seconds = {"comparing": 0.0, "writing": 0.0}
        """Wall seconds that the process was busy with calls of a kind; callers' waiting for their turn is none."""

    def __enter__(self) -> StoreProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """Hangs up on the process where anything went wrong."""
        if kind is not None:
            self.abandon()
            self.await_end(LAST_WRITE_SECONDS)

    @classmethod
    def start(
        cls,
        target: Target,
        *,
        task_id: str | None = None,
        rows: int | None = None,
        verbose: bool = False,
        lease_timeout: float = 0.0,
        wait: Callable[[], None] = lambda: None,
        told: Callable[[str], None] = lambda _: None,
        serve: child.Serve = child.serve,
    ) -> StoreProcess:
        """Starts the process and returns at once; `opened` waits for it.

        Args:
            target: What to open.
            task_id: Told to others who want the folder.
            rows: How many are going to be written at most; None: not known.
            verbose: Whether the process may write to standard error.
            lease_timeout: Seconds to wait for another holder of the folder.
            wait: Called every `POLL_SECONDS` or so while the main thread waits; may raise to give up.
            told: Hears, in the thread of the caller, what is tried again.
            serve: What the process does; a function that can be imported.

        Raises:
            LocksUnsupported: The system cannot keep signals and other writers away.
        """
        if not hasattr(signal, "pthread_sigmask"):
            raise LocksUnsupported(path=target.path)
        start = child.Start(
            target=target,
            location=location_of(target),
            task_id=task_id,
            rows=rows,
            lease_timeout=lease_timeout,
            serve=serve,
        )
        supervisor = Supervisor(start, verbose=verbose, wait=wait, told=told)
        supervisor.spawn()
        return cls(supervisor)

    def helper(self, *, told: Callable[[str], None]) -> StoreProcess:
        """Starts another writer to the same collection on a server; this one is open, has the lease and outlives it."""
        return StoreProcess(self._supervisor.helper(told=told))

    @property
    def pid(self) -> int | None:
        """The process that writes now, if there is one."""
        return self._supervisor.pid

    def leased(self) -> Leased:
        """Waits until the folder is this writer's alone; to open the collection then takes a moment more.

        Raises:
            TargetInUse: Another upsert-cli has the folder.
            TargetBusy: Another program writes to it.
            UpsertCliError: Whatever else keeps the process from getting so far.
        """
        with self._supervisor.turn():
            return self._supervisor.leased()

    def opened(self) -> Opened:
        """Waits until the collection is open, and tells what it is like.

        Raises:
            TargetInUse: Another upsert-cli has the folder.
            TargetBusy: Another program writes to it.
            TargetDamaged: The index cannot be read, or reading it ends the process.
            UpsertCliError: Whatever else keeps Chroma from opening it.
        """
        with self._supervisor.turn():
            return self._supervisor.opened()

    def compare(self, ids: list[str], hashes: list[str], keys: list[tuple[str, ...]]) -> Comparison:
        """Tells what has to be done about each document; see `Records.compare`."""
        with self._supervisor.turn(), self._timed("comparing"):
            return self._supervisor.ask(Compare(ids=ids, hashes=hashes, keys=keys))

    def find_stale_chunks(self, chunks: Mapping[str, int], *, average: bool) -> dict[str, list[RecordRef]]:
        """Returns the records that some items have no longer; see `Records.leftovers`."""
        with self._supervisor.turn(), self._timed("comparing"):
            return self._supervisor.ask(FindLeftovers(parts=chunks, average=average))

    def write(
        self, upserts: WriteBatch, updates: WriteBatch, *, between: Callable[[], None] = lambda: None
    ) -> list[tuple[str, str]]:
        """Writes all rows but those that are at fault themselves, as `Records.write` does.

        A row that ends the process is found by halving, and is at fault as well.

        Args:
            upserts: Records that are new or whose text changed.
            updates: Records of which only the metadata changed.
            between: Called after each `CALL_ROWS` rows but the last; may raise to leave the others unwritten.
        """
        updates = replace(updates, texts=[])
        places = range(len(upserts.ids) + len(updates.ids))
        refused: list[tuple[str, str]] = []
        with self._supervisor.turn(), self._timed("writing"):
            for start in range(0, len(places), CALL_ROWS):
                if start:
                    between()
                refused += self._write_part(_part_of(upserts, updates, places[start : start + CALL_ROWS]))
        return refused

    def _write_part(self, rows: Write) -> list[tuple[str, str]]:
        ids = [*rows.upserts.ids, *rows.updates.ids]
        refused: list[tuple[str, str]] = []
        most = self._supervisor.deaths + MAX_DEATHS

        def write(part: Sequence[int]) -> None:
            tries = TRIES if len(part) == len(ids) else TRIES_ALONE if len(part) == 1 else 1
            refused.extend(self._supervisor.ask(_part_of(rows.upserts, rows.updates, part), tries=tries))

        def may_blame_a_row(error: BaseException) -> bool:
            return isinstance(error, ProcessDied) and self._supervisor.deaths < most

        failing = failing_rows(range(len(ids)), write, is_data_fault=may_blame_a_row)
        refused += [(ids[place], f"the process that writes it ends by {death}") for place, death in failing]
        return refused

    def delete(self, members: Sequence[RecordRef]) -> list[str]:
        """Deletes at most `CALL_ROWS` records, and returns the ids of those that changed; see `Records.delete`."""
        with self._supervisor.turn():
            return self._supervisor.ask(Delete(members=list(members)))

    def fetch(self, ids: list[str] | None = None, *, start: int = 0, rows: int = 0) -> list[Record]:
        """Returns documents and metadata; see `Records.fetch`."""
        with self._supervisor.turn():
            return self._supervisor.ask(Fetch(ids=ids, start=start, rows=rows))

    def members(self, scope: str, *, start: int, rows: int) -> RecordRefPage:
        """Returns the records of a scope among a run of records; see `Records.members`."""
        with self._supervisor.turn():
            return self._supervisor.ask(Members(scope=scope, start=start, rows=rows))

    def check(self, *, start: int, rows: int, every: int, identity: str | None) -> CheckedRecords:
        """Tells what is wrong with a run of records; see `Records.read_back`.

        Raises:
            TargetDamaged: Reading them ends the process, or the index cannot be read at all.
        """
        return self._read(ReadBack(start=start, rows=rows, every=every, identity=identity))

    def query(self, vector: Vectors, *, rows: int, where: dict[str, Any] | None) -> list[QueryHit]:
        """Returns the records nearest to a vector; see `Records.query`.

        Raises:
            TargetDamaged: Reading them ends the process, or the index cannot be read at all.
        """
        return self._read(Query(vector=vector, rows=rows, where=where))

    def _read(self, work: Work[Result]) -> Result:
        """Has something done that reads the index, where a process that dies means that it is damaged."""
        with self._supervisor.turn():
            try:
                return self._supervisor.ask(work, tries=TRIES_ALONE)
            except ProcessDied as death:
                raise self._supervisor.cannot_open(death) from death

    def close(self) -> None:
        """Flushes the index, and waits for the process to end: the folder is free then."""
        with self._supervisor.turn():
            self._supervisor.close()

    def abandon(self) -> None:
        """Hangs up, without waiting: the process finishes the write in flight, does not flush, and ends."""
        self._supervisor.abandon()

    def await_end(self, seconds: float) -> None:
        """Waits a while for an abandoned process, so that the folder is free for whoever comes next."""
        self._supervisor.await_end(seconds)

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[kind] += time.monotonic() - began


def _part_of(upserts: WriteBatch, updates: WriteBatch, places: Sequence[int]) -> Write:
    """Returns the request for some rows, counted through both."""
    border = len(upserts.ids)
    if len(places) == border + len(updates.ids):
        return Write(upserts=upserts, updates=updates)
    return Write(
        upserts=upserts.take([place for place in places if place < border]),
        updates=updates.take([place - border for place in places if place >= border]),
    )
