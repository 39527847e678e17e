"""The parent's end of the writer's process: starts it, asks it, and notices when it dies.

Chroma's engine holds the interpreter's lock for the whole of a write, may take seconds, and can end in a segmentation
fault on a damaged index. In a process of its own it overlaps with embedding, and its death is an error message. The
process is spawned by hand, not by `multiprocessing`, which would import the parent's main module again, start one
more process to track resources, and join the child at exit however long that takes.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from upsert_cli.errors import LocksUnsupported, TargetDamaged, UpsertCliError, WriterDied
from upsert_cli.stream import child
from upsert_cli.stream.isolation import failing_rows
from upsert_cli.stream.rows import Comparison, Opened, Rows, Target

POLL_SECONDS = 0.05  # seconds; the longest that a waiting caller does not look around
RESTARTS = 2  # times that a process which died is started again for one call
MAX_DEATHS = 32  # in one write; one row that kills takes 13 to be found, and beyond this no row is to blame
EXIT_SECONDS = 10.0  # seconds that a process may take to end after its last answer
# Chroma's settings that are read from the environment when chromadb is imported, and refused there if they look wrong.
_CHROMA_PREFIX = "CHROMA_"
_CHROMA_NAMES = {"IS_PERSISTENT", "PERSIST_DIRECTORY", "ALLOW_RESET", "ANONYMIZED_TELEMETRY", "ENVIRONMENT"} | {
    "MIGRATIONS",
    "MIGRATIONS_HASH_ALGORITHM",
}
_CRASHES = {getattr(signal, name, None) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE")}
_PROGRAM = "from upsert_cli.stream.child import main; main()"


class WriterAbandoned(Exception):
    """Raised by the calls of other threads on a writer that was given up."""


class _Died(Exception):
    """Raised when the process ended before it answered."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status  # as `Popen.returncode`: negative for a signal

    @property
    def how(self) -> str:
        with suppress(ValueError):
            return signal.Signals(-self.status).name
        return f"exit code {self.status}"


class Writer:
    """A collection that is open for writing in another process.

    Calls may come from several threads; one at a time is carried out. While one waits on the main thread, it calls the
    `wait` hook. Should that raise while an answer is due, the writer is abandoned: what is being written is finished,
    but nobody learns of it.
    """

    def __init__(
        self,
        target: Target,
        *,
        task_id: str | None,
        verbose: bool,
        lease_timeout: float,
        wait: Callable[[], None],
        serve: child.Serve,
    ) -> None:
        """Starts nothing yet; use `start`."""
        self._start = child.Start(target=target, task_id=task_id, lease_timeout=lease_timeout, serve=serve)
        self._verbose = verbose
        self._wait = wait
        self._turn = threading.Lock()  # held by the caller whose request is being carried out
        self._state = threading.Lock()  # held for moments, where `abandon` may come in between
        self._abandoned = False
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._opened: Opened | None = None

    @classmethod
    def start(
        cls,
        target: Target,
        *,
        task_id: str | None = None,
        verbose: bool = False,
        lease_timeout: float = 0.0,
        wait: Callable[[], None] = lambda: None,
        serve: child.Serve = child.serve,
    ) -> Writer:
        """Starts the process and returns at once; `opened` waits for it.

        Args:
            target: What to open.
            task_id: Told to others who want the folder.
            verbose: Whether the process may write to standard error.
            lease_timeout: Seconds to wait for another holder of the folder.
            wait: Called every `POLL_SECONDS` or so while the main thread waits; may raise to give up.
            serve: What the process does.

        Raises:
            LocksUnsupported: The system cannot keep signals and other writers away.
        """
        if not hasattr(signal, "pthread_sigmask"):
            raise LocksUnsupported(path=target.path)
        writer = cls(
            target, task_id=task_id, verbose=verbose, lease_timeout=lease_timeout, wait=wait, serve=serve
        )
        writer._spawn()
        return writer

    # -- what a caller wants --------------------------------------------------------------------------------------

    def opened(self) -> Opened:
        """Waits until the collection is open, and tells what it is like.

        Raises:
            TargetInUse: Another upsert-cli has the folder.
            TargetBusy: Another program writes to it.
            TargetDamaged: The index cannot be read, or reading it ends the process.
            UpsertCliError: Whatever else keeps Chroma from opening it.
        """
        with self._my_turn():
            return self._open()

    def compare(self, ids: list[str], hashes: list[str], keys: list[tuple[str, ...]]) -> Comparison:
        """Tells what has to be done about each document; see `Records.compare`."""
        with self._my_turn():
            comparison: Comparison = self._insist(child.Compare(ids=ids, hashes=hashes, keys=keys))
            return comparison

    def write(self, upserts: Rows, updates: Rows) -> list[tuple[str, str]]:
        """Writes all rows but those that are at fault themselves; see `Records.write`.

        A row that ends the process is found by halving, and is at fault as well.
        """
        with self._my_turn():
            return _Burial(self._ask, upserts, updates).write()

    def close(self) -> None:
        """Flushes the index, waits for the process to end, and with it for the lease to be free."""
        with self._my_turn():
            self._insist(child.Close())
            self._reap()

    def abandon(self) -> None:
        """Hangs up, without waiting: the process finishes the write in flight, does not flush, and ends."""
        with self._state:
            self._abandoned = True
            if self._connection is not None:
                _hang_up(self._connection)
