"""A child process that answers calls through a pipe, and that no signal to its parent reaches.

It is spawned by hand, not by `multiprocessing`, which would import the parent's main module again, start one more
process to track resources, and join the child at exit however long that takes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO

from upsert_cli.context import RunContext
from upsert_cli.redaction import without_secrets
from upsert_cli.store.child import Answer, Call, Notice, Start

POLL_SECONDS = 0.05  # seconds between two checks for signals in a wait
EXIT_SECONDS = 30.0  # seconds that a process may take to end once it has nothing more to say
BLOCKED = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# Settings that chromadb reads from the environment when it is imported, and refuses to be imported if they look wrong.
CHROMA_SETTINGS = {"IS_PERSISTENT", "ALLOW_RESET", "ANONYMIZED_TELEMETRY", "MIGRATIONS", "MIGRATIONS_HASH_ALGORITHM"}
_PROGRAM = "from upsert_cli.store.child import main; main()"
# For glibc's allocator. Blocks of 1 MiB go back when they are freed, and Chroma's many threads share one arena: with an
# arena for each, what a write left in one is of no use to the next (measured over 36,000 first upserts: 1.8 in place of
# 2.6 KB a row, and 50 MB less from the start, for 5 % of the process's CPU).
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20), "MALLOC_ARENA_MAX": "1"}


class ProcessDied(Exception):
    """Raised when the process ended before it answered."""

    def __init__(self, status: int) -> None:
        """Take the status as `Popen` has it: negative for a signal."""
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        with suppress(ValueError):
            return signal.Signals(-self.status).name
        return f"exit code {self.status}"


def check_in_main_thread(context: RunContext) -> None:
    """Check for a stop in the main thread; other threads are ended by it, and must not abandon a write in flight."""
    if threading.current_thread() is threading.main_thread():
        context.check()


class ChildProcess:
    """The process, from its start to its end."""

    def __init__(self, start: Start, *, verbose: bool, context: RunContext) -> None:
        """Start the process without waiting for anything; its first answer is to `start`.

        Args:
            start: What it has to do.
            verbose: Whether it may write to standard error.
            context: Checked in the waits of the main thread; told what the process reports between its answers.
        """
        ours, theirs = socket.socketpair()
        with theirs, _blocked_signals():
            self._popen = subprocess.Popen(
                # -P: the working folder is the user's, and a `queue.py` in it must not be imported.
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE if verbose else subprocess.DEVNULL,
                env=_environment(),
            )
        self.pid = self._popen.pid
        if self._popen.stderr is not None:
            threading.Thread(target=_forward, args=(self._popen.stderr,), name="stderr", daemon=True).start()
        self._connection = Connection(ours.detach())
        self._hung_up = False
        self._context = context
        with suppress(OSError):  # if it is dead already, that shows when its answer is waited for
            self._connection.send(start)

    def ask(self, call: Call) -> Answer:
        """Send a call to a process that has answered all before, and wait for its answer.

        Raises:
            ProcessDied: It ended.
            BaseException: Whatever the context raised; an answer may still be on its way.
        """
        try:
            self._connection.send(call)
        except OSError as error:
            raise self._death() from error
        return self.receive()

    def receive(self) -> Answer:
        """Wait for an answer; see `ask`."""
        while True:
            try:
                while not self._connection.poll(POLL_SECONDS):
                    check_in_main_thread(self._context)
                message: Answer | Notice = self._connection.recv()
            except (EOFError, ConnectionError) as error:
                raise self._death() from error
            if isinstance(message, Answer):
                return message
            self._context.info(message.text)

    def _death(self) -> ProcessDied:
        # A process that we hung up on may live for as long as its write takes.
        return ProcessDied(0 if self._hung_up else self.join())

    def hang_up(self) -> None:
        """Close the pipe for both ends, even while a thread waits for an answer."""
        self._hung_up = True
        with suppress(OSError):
            end = socket.socket(fileno=os.dup(self._connection.fileno()))
            with end:
                end.shutdown(socket.SHUT_RDWR)

    def await_end(self, seconds: float) -> None:
        """Wait until the process has ended, or until the time is over."""
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)

    def join(self) -> int:
        """Wait until the process has ended, and return its status.

        Raises:
            TimeoutExpired: It does not end.
        """
        for _ in range(int(EXIT_SECONDS / POLL_SECONDS)):
            with suppress(subprocess.TimeoutExpired):
                return self._popen.wait(POLL_SECONDS)
            check_in_main_thread(self._context)
        raise subprocess.TimeoutExpired(self._popen.args, EXIT_SECONDS)


def _forward(stderr: IO[bytes]) -> None:
    """Copy the process's standard error to our own, without secrets."""
    with stderr:
        for line in stderr:
            with suppress(OSError, ValueError):  # ours is closed; the process must not block for that
                sys.stderr.write(without_secrets(line.decode(errors="backslashreplace")))


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block signals in this thread: a new process inherits what is blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment() -> dict[str, str]:
    environment: dict[str, str] = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("CHROMA_") and name.upper() not in CHROMA_SETTINGS
    }
    # The process finds what this one finds, however this one was told where to look.
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return ALLOCATOR | environment
