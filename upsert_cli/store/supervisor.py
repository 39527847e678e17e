"""A process that is started again when it dies, and given up when it dies each time.

Of a folder it is the holder of the lease, so a new one starts only when its forerunner is gone.
"""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, TypeVar, cast

from upsert_cli.errors import TargetDamaged, UpsertCliError, WriterDied
from upsert_cli.limits import memory_limit, out_of_memory
from upsert_cli.store.base import Leased, Opened
from upsert_cli.store.child import Answer, Start
from upsert_cli.store.requests import Close, Request, Work
from upsert_cli.store.spawn import POLL_SECONDS, ChildProcess, ProcessDied

TRIES = 3  # tries of one call; a process that dies is started again in between
TRIES_ALONE = 2  # tries of one row before it is blamed; one death might be by another hand
_CRASHES = {-getattr(signal, name, 0) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")}

Result = TypeVar("Result")


class StoreAbandoned(Exception):
    """Raised by calls on a process that was given up."""


class Supervisor:
    """The processes that have a collection open, one after the other.

    Calls may come from several threads, each in its `turn`. A call that waits on the main thread calls the `wait` hook
    meanwhile. If the hook raises while an answer is due, all is abandoned.
    """

    def __init__(self, start: Start, *, verbose: bool, wait: Callable[[], None], told: Callable[[str], None]) -> None:
        """Starts nothing yet; `spawn` does, and whatever needs a process."""
        self._start = start
        self._told = told
        self._verbose = verbose
        self._wait = wait
        self._turn = threading.Lock()  # held by the caller whose request is being carried out
        self._state = threading.Lock()  # held for moments, since `abandon` does not wait for its turn
        self._abandoned = False
        self._process: ChildProcess | None = None
        self._leased: Leased | None = None
        self._opened: Opened | None = None
        self._failed_starts = 0  # deaths, one after the other, before the collection was open
        self.deaths = 0
        """Of processes that were at work on a request."""

    def helper(self, *, told: Callable[[str], None]) -> Supervisor:
        """Starts another process for the same collection on a server; see `StoreProcess.helper`."""
        target = replace(self._start.target, as_found=True, beside_others=True)
        start = replace(self._start, target=target, rows=None, lease_timeout=0.0)
        supervisor = Supervisor(start, verbose=self._verbose, wait=self._wait, told=told)
        supervisor.spawn()
        return supervisor

    @property
    def pid(self) -> int | None:
        """The process that is at work now, if there is one."""
        return self._process.pid if self._process is not None else None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for this thread's turn.

        Raises:
            WriterDied: A process died within it, and no caller knows what that means.
        """
        while not self._turn.acquire(timeout=POLL_SECONDS):
            self._look_around()
        try:
            yield
        except ProcessDied as death:
            raise self._died(death) from death
        finally:
            self._turn.release()

    def leased(self) -> Leased:
        """Waits until the folder is the process's alone; see `StoreProcess.leased`."""
        while self._leased is None:
            self._begin()
        return self._leased

    def opened(self) -> Opened:
        """Waits until the collection is open; see `StoreProcess.opened`."""
        while self._opened is None:
            self._begin()
        return self._opened

    def ask(self, work: Work[Result], *, tries: int = TRIES) -> Result:
        """Has something done, by a process that is started again, up to a number of tries, when it dies.

        Raises:
            Died: It died each time.
        """
        return cast("Result", self._ask(work, tries=tries))

    def close(self) -> None:
        """Ends the process in order: it flushes the index, and the folder is free."""
        self._ask(Close(), tries=TRIES)
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):  # the folder is free already
                self._process.join(self._look_around)

    def abandon(self) -> None:
        """Hangs up, without waiting; see `StoreProcess.abandon`."""
        with self._state:
            self._abandoned = True
            if self._process is not None:
                self._process.hang_up()

    def await_end(self, seconds: float) -> None:
        """Waits a while for an abandoned process."""
        if self._process is not None:
            self._process.await_end(seconds)

    def spawn(self) -> ChildProcess:
        """Starts a process without waiting for anything."""
        with self._state:
            if self._abandoned:
                raise StoreAbandoned
            self._process = ChildProcess(self._start, verbose=self._verbose, told=self._told)
            return self._process

    def cannot_open(self, death: ProcessDied) -> UpsertCliError:
        """Returns what it means that a process died from no more than reading."""
        if death.status not in _CRASHES or memory_limit() is not None:
            return self._died(death)
        target = self._start.target
        return TargetDamaged(
            path=target.path, collection=target.collection, detail=f"reading it ends the process by {death}"
        )

    def _died(self, death: ProcessDied) -> UpsertCliError:
        if memory_limit() is not None:  # the likeliest reason, and a damaged index is still damaged without the limit
            return out_of_memory(f"the process that opens Chroma ended by {death}")
        target = self._start.target
        return WriterDied(path=target.path, collection=target.collection, how=str(death))

    def _ask(self, request: Request, *, tries: int) -> Any:
        left = tries
        while True:
            left -= 1
            self.opened()
            try:
                return self._answer(lambda process: process.ask(request, self._look_around))
            except ProcessDied:
                self.deaths += 1
                if not left:
                    raise

    def _begin(self) -> None:
        """Takes what the process says next of its beginning: that it has the lease, or that the collection is open."""
        try:
            said = self._answer(lambda process: process.receive(self._look_around))
        except ProcessDied as death:
            self._failed_starts += 1
            if self._failed_starts == TRIES:
                self._failed_starts = 0
                raise self.cannot_open(death) from death
            return
        if isinstance(said, Leased):
            self._leased = said
        else:
            self._opened = said
            self._failed_starts = 0

    def _answer(self, get: Callable[[ChildProcess], Answer]) -> Any:
        process = self._process or self.spawn()
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
            self.abandon()  # an answer may still come, and nobody would know to which request
            raise
        if answer.error is not None:
            raise answer.error
        return answer.value

    def _look_around(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._wait()
