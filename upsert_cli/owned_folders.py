"""Folders that a process owns for as long as it lives, so that another one can tell what a killed process has left."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """What a killed process has left."""

    path: Path
    size: int
    """Bytes."""

    @classmethod
    def at(cls, path: Path) -> Leftover:
        """Look at a file or a folder, which another process may remove in this moment."""
        size = 0
        for file in (path, *path.rglob("*")) if path.is_dir() else (path,):
            with suppress(FileNotFoundError):
                size += 0 if file.is_dir() else file.lstat().st_size
        return cls(path=path, size=size)

    def __str__(self) -> str:
        return f"{self.size:,} bytes that a killed process has left"

    def remove(self) -> None:
        """Remove it; it is no error if another process was faster."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


def own(folder: Path, *, shared: bool = False) -> int:
    """Own a folder, alone or together with others, until the descriptor that this returns is closed.

    The folder may be renamed meanwhile. Where the file system has no locks, nobody owns anything.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    _lock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    return descriptor


def is_owned(folder: Path) -> bool:
    """Tell whether a living process owns a folder; where the file system has no locks, nobody seems to."""
    return _could_be_taken(folder) is False


def unowned(folders: Iterator[Path]) -> Iterator[Leftover]:
    """Yield the folders of which is known that no living process owns them."""
    return (Leftover.at(folder) for folder in folders if _could_be_taken(folder))


def _could_be_taken(folder: Path) -> bool | None:
    """Tell whether a lock on a folder is free; None if it is gone, or cannot be locked."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        return _lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: int) -> bool | None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks
        return None
    return True
