"""A child process that is started again when it dies, and given up when it dies each time.

For a folder it holds the lease, so a new one starts only when the last one is gone.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from upsert_cli.context import RunContext
from upsert_cli.errors import TargetDamaged, UpsertCliError, repair_command
from upsert_cli.limits import memory_limit, out_of_memory
from upsert_cli.store.base import Leased, Opened
from upsert_cli.store.child import Answer, Call, Start
from upsert_cli.store.spawn import POLL_SECONDS, ChildProcess, ProcessDied, check_in_main_thread

TRIES = 3  # tries of one call; a process that dies is started again in between
LAST_WRITE_SECONDS = 3.0  # seconds to wait for the process at an early end; CI systems grant 7.5 s in all
_CRASHES = {-getattr(signal, name, 0) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")}


class StoreAbandoned(Exception):
    """Raised by calls on a process that was abandoned."""


class RestartingChild:
    """The processes that have a collection open, one after the other.

    Calls may come from several threads; one at a time is carried out. A call that waits in the main thread checks the
    context. If that raises while an answer is due, the process is abandoned: it finishes what it is writing or
    flushing, but nobody learns of it.
    """

    def __init__(self, start: Start, *, verbose: bool, context: RunContext) -> None:
        """Start the process and return at once."""
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

    def __enter__(self) -> Self:
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
