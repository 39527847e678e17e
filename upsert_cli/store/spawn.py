"""Starting the child process of a store, with a pipe to it.

`multiprocessing` would import the parent's main module again, start one more process to track resources, and wait at
exit for the child, however long that takes.
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

from upsert_cli.redaction import without_secrets
from upsert_cli.store.folder import WRITER_PROGRAM

BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Settings that chromadb reads from the environment when it is imported, and refuses to be imported if they look wrong.
CHROMA_SETTINGS = {"IS_PERSISTENT", "ALLOW_RESET", "ANONYMIZED_TELEMETRY", "MIGRATIONS", "MIGRATIONS_HASH_ALGORITHM"}
# For glibc's allocator. Blocks of 1 MiB go back to the system when they are freed, and Chroma's many threads share one
# arena, since no thread can use the memory that is free in the arena of another (measured over 36,000 first upserts:
# 1.8 instead of 2.6 KB a row, and 50 MB less from the start, for 5 % of the process's CPU).
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20), "MALLOC_ARENA_MAX": "1"}


def spawn(*, verbose: bool) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a child process that no signal reaches, and return it with our end of the pipe.

    With `verbose`, its standard error is copied to our own.
    """
    ours, theirs = socket.socketpair()
    with theirs, _blocked_signals():
        child = subprocess.Popen(
            # -P: the working folder is the user's, and a `queue.py` in it must not be imported.
            [sys.executable, "-P", "-c", WRITER_PROGRAM, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if verbose else subprocess.DEVNULL,
            env=_environment(),
        )
    if child.stderr is not None:
        threading.Thread(target=_forward, args=(child.stderr,), name="stderr", daemon=True).start()
    return child, Connection(ours.detach())


def hang_up(connection: Connection) -> None:
    """Close the pipe for both ends, even while another thread waits for an answer."""
    with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def _environment() -> dict[str, str]:
    """Return our environment for a child: with the same import path, and without Chroma's settings."""
    environment: dict[str, str] = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith("CHROMA_") and name.upper() not in CHROMA_SETTINGS
    }
    environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return ALLOCATOR | environment


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block signals in this thread, since a new process inherits the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forward(stderr: IO[bytes]) -> None:
    """Copy the standard error of a child to our own, without secrets."""
    with stderr:
        for line in stderr:
            with suppress(OSError, ValueError):  # our own is closed, which must not block the child
                sys.stderr.write(without_secrets(line.decode(errors="backslashreplace")))
