"""A child process that answers calls through a pipe, and that is started again when it dies."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from upsert_cli.context import RunContext
from upsert_cli.errors import TargetDamaged, UpsertCliError, repair_command
from upsert_cli.limits import memory_limit, out_of_memory
from upsert_cli.store.child import Answer, Call, Start
from upsert_cli.store.spawn import hang_up, spawn
from upsert_cli.store.target import Opened

TRIES = 3  # tries of one call; a process that dies is started again in between
POLL_SECONDS = 0.05  # seconds between two checks for signals in a wait
EXIT_SECONDS = 30.0  # seconds that a process may take to end after its last answer
_COUNTED_AS = dict.fromkeys(("compare", "may_have_chunks", "find_stale_chunks"), "comparing") | {"write": "writing"}
_CRASHES = {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGILL, -signal.SIGFPE}


class ProcessDied(UpsertCliError):
    """Raised when the process ended before it answered."""

    path: str
    collection: str
    status: int
    """As in `Popen.returncode`: negative for a signal."""

    @property
    def how(self) -> str:
        """The signal or the exit code that it ended with."""
        with suppress(ValueError):
            return signal.Signals(-self.status).name
        return f"exit code {self.status}"

    def __str__(self) -> str:
        if memory_limit() is not None:  # the likeliest reason; a damaged index is reported once the limit is gone
            return str(out_of_memory(f"the process that opens Chroma ended by {self.how}"))
        return (
            f"the process that writes the collection {self.collection} in {self.path} ended by {self.how} each time; "
            f"the collection's index may be damaged: `{repair_command(self.collection, self.path)}` checks and repairs "
            f"it (SIGKILL may also mean that memory ran out)"
        )

    def while_reading(self) -> UpsertCliError:
        """Return the error for a process that only read: a crash then means a damaged index."""
        if self.status not in _CRASHES or memory_limit() is not None:
            return self
        detail = f"reading it ends the process by {self.how}"
        return TargetDamaged(path=self.path, collection=self.collection, detail=detail)


class ChildProcess:
    """The processes that have a collection open, one after the other.

    Any thread may call. One call at a time is carried out, and a call that waits in the main thread checks the context.
    If the context raises while an answer is due, the process is abandoned: it completes the write or flush in flight,
    but nobody receives the answer.
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
        """Deaths of processes in the middle of a call."""

        self.seconds = {"comparing": 0.0, "writing": 0.0}
        """Wall seconds that calls took by their purpose, not counting time spent waiting for other calls."""

        self._spawn()

    @property
    def pid(self) -> int:
        """The process id of the present process, or of the last one."""
        return self._popen.pid

    def is_empty(self) -> bool:
        """Wait for the lease, and return whether the collection certainly holds nothing yet.

        The collection is open only a moment later.

        Raises:
            TargetInUse: Another upsert-cli has the lease.
            TargetBusy: Another program writes to the location.
            UpsertCliError: The process cannot get so far.
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
        """Hang up without waiting: the process completes the write in flight, does not flush, and ends."""
        with self._state:
            self._abandoned = True
            hang_up(self._connection)

    def await_end(self, seconds: float = EXIT_SECONDS) -> int:
        """Wait until the process has ended, and the folder is free; return its status, or 0 after `seconds`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with suppress(subprocess.TimeoutExpired):
                return self._popen.wait(POLL_SECONDS)
            if not self._abandoned:
                self._check()
        return 0

    # -- one process -------------------------------------------------------------------------------------------------

    @contextmanager
    def _working(self, method: str = "") -> Iterator[None]:
        """Wait for this thread's turn, and count the time inside as time of a method."""
        while not self._turn.acquire(timeout=POLL_SECONDS):
            self._check()
        began = time.monotonic()
        try:
            yield
        finally:
            if (purpose := _COUNTED_AS.get(method)) is not None:
                self.seconds[purpose] += time.monotonic() - began
            self._turn.release()

    def _check(self) -> None:
        """Check for a stop in the main thread; a stop ends other threads, which must not abandon a write in flight."""
        if threading.current_thread() is threading.main_thread():
            self._context.check()

    def _await_opened(self) -> Opened:
        while self._opened is None:
            self._begin()
        return self._opened

    def _begin(self) -> None:
        """Take the next answer of a starting process: whether the collection is empty, or that it is open."""
        try:
            answer = self._receive()
        except ProcessDied as death:
            self._failed_starts += 1
            if self._failed_starts == TRIES:
                self._failed_starts = 0
                raise death.while_reading() from death
        else:
            if isinstance(answer, Opened):
                self._opened, self._failed_starts = answer, 0
            else:
                self._is_empty = answer

    def _receive(self, call: Call | None = None) -> Any:
        """Make a call and return its result; without a call, return the next answer of a starting process."""
        if self._is_dead:
            self._spawn()
        try:
            answer = self._exchange(call)
        except (EOFError, ConnectionError) as error:
            self._is_dead, self._is_empty, self._opened = True, None, None
            if self._abandoned:
                raise _abandoned() from error
            target = self._start.target
            raise ProcessDied(path=target.path, collection=target.collection, status=self.await_end()) from error
        except BaseException:
            self.abandon()  # an answer may still come, and nothing shows to which call it belongs
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _spawn(self) -> None:
        with self._state:
            if self._abandoned:
                raise _abandoned()
            self._popen, self._connection = spawn(verbose=self._verbose)
            self._is_dead = False
        with suppress(OSError):  # it is dead already, which shows when its answer is waited for
            self._connection.send(self._start)

    def _exchange(self, call: Call | None) -> Answer:
        """Send a call, if there is one, and return the next answer; show the messages before it."""
        if self._abandoned:
            raise _abandoned()
        if call is not None:
            self._connection.send(call)
        while True:
            while not self._connection.poll(POLL_SECONDS):
                self._check()
            answer: Answer = self._connection.recv()
            if not isinstance(answer, str):
                return answer
            self._context.info(answer)


def _abandoned() -> Exception:
    return RuntimeError("the process of the store was abandoned")
