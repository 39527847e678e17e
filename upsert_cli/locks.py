"""Locks that the kernel frees when their holder dies, and that a process holds for milliseconds.

These use flock directly. The `filelock` package 3.16 truncates the lock file at every attempt, which removes the facts
that the holder wrote. Where a file system has no flock, it uses a file that survives a killed holder. Its import costs
30 ms of CPU, nearly as much as click and tinydb together.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from upsert_cli.errors import LocksUnsupported

FIRST_PAUSE = 0.001  # seconds between two tries for a lock that is held for milliseconds, doubled each time
LONGEST_PAUSE = 0.02  # seconds between two tries, at most
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


def try_lock(descriptor: int, path: Path, *, shared: bool = False) -> bool:
    """Lock an open file or folder until its descriptor is closed; return False if another process holds the lock.

    Raises:
        LocksUnsupported: The system or the file system has no flock.
    """
    try:
        import fcntl
    except ImportError as error:  # Windows
        raise LocksUnsupported(path=str(path)) from error
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise LocksUnsupported(path=str(path)) from error
        raise
    return True


def lock_within(descriptor: int, path: Path, *, seconds: float) -> bool:
    """Lock an open file or folder that others lock for milliseconds; return False if that takes too long."""
    until = time.monotonic() + seconds
    pause = FIRST_PAUSE
    # Not in one wait, so that a suspended holder ends in an error.
    while not try_lock(descriptor, path):
        if time.monotonic() >= until:
            return False
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    return True


@contextmanager
def locked_folder(folder: Path, *, seconds: float) -> Iterator[None]:
    """Lock a folder itself, so that no lock file appears next to the user's files.

    Raises:
        BlockingIOError: Another process keeps the folder locked for too long.
        LocksUnsupported: The system or the file system has no flock.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not lock_within(descriptor, folder, seconds=seconds):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)
