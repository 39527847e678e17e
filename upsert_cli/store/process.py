"""A store in a child process: each call is a message to it.

Chroma's engine holds the interpreter's lock for the whole of a write, may take seconds, and can end in a segmentation
fault on a damaged index. In a process of its own it overlaps with embedding, and its death is an error message. A
process that dies is started again. For a folder it holds the lease, so a new one starts only when the last one is gone.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from upsert_cli.bisect import failing_rows
from upsert_cli.context import RunContext, Unattended
from upsert_cli.errors import LocksUnsupported, TargetDamaged, UpsertCliError, repair_command
from upsert_cli.limits import memory_limit, out_of_memory
from upsert_cli.store.base import (
    CheckedRecords,
    Comparison,
    Leased,
    Opened,
    QueryHit,
    Record,
    RecordRef,
    RecordRefPage,
    Store,
    Target,
    WriteBatch,
)
from upsert_cli.store.child import Answer, Call, Serve, Start, serve
from upsert_cli.store.locations import location_of
from upsert_cli.store.spawn import POLL_SECONDS, ChildProcess, ProcessDied, check_in_main_thread

if TYPE_CHECKING:
    from upsert_cli.store.base import Vectors

P = ParamSpec("P")
R = TypeVar("R")

CALL_ROWS = 512  # rows a call, which nothing interrupts: 3.6 s of CPU where all replace others, else 1.3 s
TRIES = 3  # tries of one call; a process that dies is started again in between
TRIES_ALONE = 2  # tries of one row before it is blamed; one death might have another cause
MAX_DEATHS = 32  # in one write; a row that kills is found after 13, and beyond this no row is to blame
LAST_WRITE_SECONDS = 3.0  # seconds to wait for the process at an early end; CI systems grant 7.5 s in all
_CRASHES = {-getattr(signal, name, 0) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")}


class StoreAbandoned(Exception):
    """Raised by calls on a process that was abandoned."""


class StoreProcess:
    """A `Store` in a child process.

    Calls may come from several threads; one at a time is carried out. A call that waits in the main thread checks the
    context. If that raises while an answer is due, the process is abandoned: it finishes what it is writing or
    flushing, but nobody learns of it.
    """

    def __init__(self, start: Start, *, verbose: bool, context: RunContext) -> None:
        """Start the process and return at once; use `start`."""
        self._start = start
        self._verbose = verbose
        self._context = context
        self._turn = threading.Lock()  # held by the caller whose call is being carried out
        self._state = threading.Lock()  # held for moments, since `abandon` does not wait for its turn
        self._abandoned = False
        self._process: ChildProcess | None = None
        self._leased: Leased | None = None
        self._opened: Opened | None = None
        self._failed_starts = 0  # consecutive deaths before the collection was open
        self._deaths = 0  # of processes that were at work on a call
        self.seconds = {"comparing": 0.0, "writing": 0.0}
        """Wall seconds that calls of a kind took, not counting time spent waiting for other calls."""

        self._spawn()

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

    def __enter__(self) -> StoreProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        """Abandon the process if anything went wrong."""
        if kind is not None:
            self.abandon()
            self.await_end(LAST_WRITE_SECONDS)

    @property
    def pid(self) -> int | None:
        """The process that is at work now, if there is one."""
        return self._process.pid if self._process is not None else None

    # -- the store -----------------------------------------------------------------------------------------------------

    def leased(self) -> Leased:
        """Wait until nobody else writes to the location; opening the collection takes a moment more.

        Raises:
            TargetInUse: Another upsert-cli has it.
            TargetBusy: Another program writes to it.
            UpsertCliError: Something else keeps the process from getting so far.
        """
        with self._working():
            while self._leased is None:
                self._begin()
            return self._leased

    def opened(self) -> Opened:
        """Wait until the collection is open; see `Location.open` and `leased` for the errors.

        Raises:
            TargetDamaged: The index cannot be read, or reading it ends the process.
        """
        with self._working():
            return self._await_opened()

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

    def abandon(self) -> None:
        """Hang up without waiting: the process finishes the write in flight, does not flush, and ends."""
        with self._state:
            self._abandoned = True
            if self._process is not None:
                self._process.hang_up()

    def await_end(self, seconds: float) -> None:
        """Wait a while for an abandoned process to free the folder."""
        if self._process is not None:
            self._process.await_end(seconds)

    # -- the process ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _working(self, kind: str | None = None) -> Iterator[None]:
        """Wait for this thread's turn, and count the time inside.

        Raises:
            UpsertCliError: A process died inside, and nobody there knows what that means.
        """
        while not self._turn.acquire(timeout=POLL_SECONDS):
            check_in_main_thread(self._context)
        began = time.monotonic()
        try:
            yield
        except ProcessDied as death:
            raise self._died(death) from death
        finally:
            if kind is not None:
                self.seconds[kind] += time.monotonic() - began
            self._turn.release()

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

    def _ask(self, call: Call, *, tries: int) -> Any:
        """Make a call, and start the process again, up to a number of tries, when it dies.

        Raises:
            ProcessDied: It died each time.
        """
        while True:
            tries -= 1
            self._await_opened()
            try:
                return self._answer(lambda process: process.ask(call))
            except ProcessDied:
                self._deaths += 1
                if not tries:
                    raise

    def _await_opened(self) -> Opened:
        while self._opened is None:
            self._begin()
        return self._opened

    def _begin(self) -> None:
        """Take the next message of a starting process: that it has the lease, or that the collection is open."""
        try:
            value = self._answer(ChildProcess.receive)
        except ProcessDied as death:
            self._failed_starts += 1
            if self._failed_starts == TRIES:
                self._failed_starts = 0
                raise self._unreadable(death) from death
            return
        if isinstance(value, Leased):
            self._leased = value
        else:
            self._opened = value
            self._failed_starts = 0

    def _answer(self, get: Callable[[ChildProcess], Answer]) -> Any:
        process = self._process or self._spawn()
        if self._abandoned:
            raise StoreAbandoned
        try:
            answer = get(process)
        except ProcessDied as death:
            self._process = self._leased = self._opened = None
            if self._abandoned:
                raise StoreAbandoned from death
            raise
        except BaseException:
            self.abandon()  # an answer may still come, and nobody would know to which call
            raise
        if answer.error is not None:
            raise answer.error
        return answer.value

    def _spawn(self) -> ChildProcess:
        with self._state:
            if self._abandoned:
                raise StoreAbandoned
            self._process = ChildProcess(self._start, verbose=self._verbose, context=self._context)
            return self._process

    def _unreadable(self, death: ProcessDied) -> UpsertCliError:
        """Return the error for a process that died from merely reading."""
        if death.status not in _CRASHES or memory_limit() is not None:
            return self._died(death)
        target = self._start.target
        return TargetDamaged(
            path=target.path, collection=target.collection, detail=f"reading it ends the process by {death}"
        )

    def _died(self, death: ProcessDied) -> UpsertCliError:
        if memory_limit() is not None:  # the likeliest reason, and a damaged index is still damaged without the limit
            return out_of_memory(f"the process that opens Chroma ended by {death}")
        collection, path = self._start.target.collection, self._start.target.path
        return UpsertCliError(
            message=f"the process that writes the collection {collection} in {path} ended by {death} each time; the "
            f"collection's index may be damaged: `{repair_command(collection, path)}` checks and repairs it "
            f"(SIGKILL may also mean that memory ran out)"
        )


def _take(upserts: WriteBatch, updates: WriteBatch, rows: Sequence[int]) -> tuple[WriteBatch, WriteBatch]:
    """Return some of the rows, which are numbered through both."""
    border = len(upserts.ids)
    if len(rows) == border + len(updates.ids):
        return upserts, updates
    return (
        upserts.take([row for row in rows if row < border]),
        updates.take([row - border for row in rows if row >= border]),
    )
