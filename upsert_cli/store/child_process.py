"""A child process that answers calls through a pipe, that no signal reaches, and that is started again when it dies.

It is spawned directly, not by `multiprocessing`, which would import the parent's main module again, start one more
process to track resources, and join the child at exit however long that takes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import IO, Any

from upsert_cli.context import RunContext
from upsert_cli.errors import TargetDamaged, UpsertCliError, repair_command
from upsert_cli.limits import memory_limit, out_of_memory
from upsert_cli.redaction import without_secrets
from upsert_cli.store.child import Answer, Call, Start, environment
from upsert_cli.store.folder import WRITER_PROGRAM
from upsert_cli.store.target import Opened

TRIES = 3  # tries of one call; a process that dies is started again in between
POLL_SECONDS = 0.05  # seconds between two checks for signals in a wait
EXIT_SECONDS = 30.0  # seconds that a process may take to end once it has nothing more to say
BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_KINDS = dict.fromkeys(("compare", "may_have_chunks", "find_stale_chunks"), "comparing") | {"write": "writing"}
_CRASHES = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE}


class StoreAbandoned(Exception):
    """Raised by calls on a process that was abandoned."""


class ProcessDied(UpsertCliError):
    """Raised when the process ended before it answered."""

    path: str
    collection: str
    status: int
    """As `Popen` has it: negative for a signal."""

    @property
    def how(self) -> str:
        """The signal or the exit code that it ended with."""
        with suppress(ValueError):
            return signal.Signals(-self.status).name
        return f"exit code {self.status}"

    def __str__(self) -> str:
        if memory_limit() is not None:  # the likeliest reason, and a damaged index is still damaged without the limit
            return str(out_of_memory(f"the process that opens Chroma ended by {self.how}"))
        return (
            f"the process that writes the collection {self.collection} in {self.path} ended by {self.how} each time; "
            f"the collection's index may be damaged: `{repair_command(self.collection, self.path)}` checks and repairs "
            f"it (SIGKILL may also mean that memory ran out)"
        )

    def of_a_reader(self) -> UpsertCliError:
        """Return the error for a process that died from merely reading: it is damage, unless something killed it."""
        if self.status not in _CRASHES or memory_limit() is not None:
            return self
        detail = f"reading it ends the process by {self.how}"
        return TargetDamaged(path=self.path, collection=self.collection, detail=detail)


class ChildProcess:
    """The processes that have a collection open, one after the other.

    Calls may come from several threads; one at a time is carried out. A call that waits in the main thread checks the
    context. If that raises while an answer is due, the process is abandoned: it finishes the write or flush
    in flight, but nobody learns of it.
    """

    def __init__(self, start: Start, *, verbose: bool, context: RunContext) -> None:
        """Start the process without waiting for anything; see `StoreProcess`."""
        self._start = start
        self._verbose = verbose
        self._context = context
        self._turn = threading.Lock()  # held by the caller whose call is being carried out
        self._state = threading.Lock()  # held for moments, since `abandon` does not wait for its turn
        self._abandoned = False
        self._is_dead = False  # until the next one is started
        self._is_empty: bool | None = None  # None until the lease is taken
        self._opened: Opened | None = None
        self._failed_starts = 0  # consecutive deaths before the collection was open
        self.deaths = 0
        """Deaths of processes that were at work on a call."""

        self.seconds = {"comparing": 0.0, "writing": 0.0}
        """Wall seconds that calls of a kind took, not counting time spent waiting for other calls."""

        self._spawn()

    @property
    def pid(self) -> int:
        """The process id of the present process, or of the last one."""
        return self._popen.pid

    def is_empty(self) -> bool:
        """Wait until nobody else writes to the location, and tell whether the collection certainly holds nothing yet.

        Opening the collection takes a moment more.

        Raises:
            TargetInUse: Another upsert-cli has it.
            TargetBusy: Another program writes to it.
            UpsertCliError: Something else keeps the process from getting so far.
        """
        with self._working():
            while self._is_empty is None:
                self._begin()
            return self._is_empty

    def opened(self) -> Opened:
        """Wait until the collection is open; see `Location.open` and `is_empty` for the errors.

        Raises:
            TargetDamaged: The index cannot be read, or reading it ends the process.
        """
        with self._working():
            return self._await_opened()

    def ask(self, method: str, *args: Any, tries: int = TRIES, **options: Any) -> Any:
        """Call a method, and start the process again when it dies; `ProcessDied` is raised if it dies each time."""
        with self._working(method):
            while True:
                tries -= 1
                self._await_opened()
                try:
                    return self._receive((method, args, options))
                except ProcessDied:
                    self.deaths += 1
                    if not tries:
                        raise

    def abandon(self) -> None:
        """Hang up without waiting: the process finishes the write in flight, does not flush, and ends."""
        with self._state:
            self._abandoned = True
            # Closes the pipe for both ends, even while a thread waits for an answer.
            with suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as end:
                end.shutdown(socket.SHUT_RDWR)

    def await_end(self, seconds: float = EXIT_SECONDS) -> int:
        """Wait until the process has ended, and the folder is free; return its status, or 0 if that takes too long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(subprocess.TimeoutExpired):
                return self._popen.wait(POLL_SECONDS)
            if not self._abandoned:
                self._check()
        return 0

    # -- one process -------------------------------------------------------------------------------------------------

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with self._state, theirs, _blocked_signals():
            if self._abandoned:
                ours.close()
                raise StoreAbandoned
            self._popen = subprocess.Popen(
                # -P: the working folder is the user's, and a `queue.py` in it must not be imported.
                [sys.executable, "-P", "-c", WRITER_PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE if self._verbose else subprocess.DEVNULL,
                env=environment(),
            )
            self._connection = Connection(ours.detach())
            self._is_dead = False
        if self._popen.stderr is not None:
            threading.Thread(target=_forward, args=(self._popen.stderr,), name="stderr", daemon=True).start()
        with suppress(OSError):  # if it is dead already, that shows when its answer is waited for
            self._connection.send(self._start)

    @contextmanager
    def _working(self, method: str = "") -> Iterator[None]:
        """Wait for this thread's turn, and count the time inside as that of a method."""
        while not self._turn.acquire(timeout=POLL_SECONDS):
            self._check()
        began = time.monotonic()
        try:
            yield
        finally:
            if (kind := _KINDS.get(method)) is not None:
                self.seconds[kind] += time.monotonic() - began
            self._turn.release()

    def _check(self) -> None:
        """Check for a stop in the main thread; it ends other threads, which must not abandon a write in flight."""
        if threading.current_thread() is threading.main_thread():
            self._context.check()

    def _await_opened(self) -> Opened:
        while self._opened is None:
            self._begin()
        return self._opened

    def _begin(self) -> None:
        """Take the next message of a starting process: that it has the lease, or that the collection is open."""
        try:
            value = self._receive()
        except ProcessDied as death:
            self._failed_starts += 1
            if self._failed_starts == TRIES:
                self._failed_starts = 0
                raise death.of_a_reader() from death
        else:
            if isinstance(value, Opened):
                self._opened, self._failed_starts = value, 0
            else:
                self._is_empty = value

    def _receive(self, call: Call | None = None) -> Any:
        """Make a call and return its result; without one, return the next news of a process that is starting."""
        if self._is_dead:
            self._spawn()
        try:
            answer = self._exchange(call)
        except (EOFError, ConnectionError) as error:
            self._is_dead, self._is_empty, self._opened = True, None, None
            if self._abandoned:
                raise StoreAbandoned from error
            target = self._start.target
            raise ProcessDied(path=target.path, collection=target.collection, status=self.await_end()) from error
        except BaseException:
            self.abandon()  # an answer may still come, and nobody would know to which call
            raise
        if answer.error is not None:
            raise answer.error
        return answer.value

    def _exchange(self, call: Call | None) -> Answer:
        if self._abandoned:
            raise StoreAbandoned
        if call is not None:
            self._connection.send(call)
        while True:
            while not self._connection.poll(POLL_SECONDS):
                self._check()
            message: Answer | str = self._connection.recv()
            if isinstance(message, Answer):
                return message
            self._context.info(message)


def _forward(stderr: IO[bytes]) -> None:
    """Copy the process's standard error to our own, without secrets."""
    with stderr:
        for line in stderr:
            with suppress(OSError, ValueError):  # ours is closed; the process must not block for that
                sys.stderr.write(without_secrets(line.decode(errors="backslashreplace")))


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block signals in this thread: a new process inherits the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
