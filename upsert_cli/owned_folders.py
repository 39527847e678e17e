"""Folders that a process owns while it lives, so that others recognize the leftovers of killed processes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from upsert_cli.errors import LocksUnsupported
from upsert_cli.locks import try_lock

STALE_SECONDS = 24 * 3600  # seconds; no process takes that long to fill a folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A file or folder that a killed process left."""

    path: Path
    size: int
    """Bytes."""

    @classmethod
    def at(cls, path: Path) -> Leftover:
        """Measure a file or a folder, which another process may be removing."""
        size = 0
        for file in (path, *path.rglob("*")) if path.is_dir() else (path,):
            with suppress(FileNotFoundError):
                size += 0 if file.is_dir() else file.lstat().st_size
        return cls(path=path, size=size)

    def __str__(self) -> str:
        return f"{self.size:,} bytes left by a killed process"

    def remove(self) -> None:
        """Remove the file or folder, unless another process was faster."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


@contextmanager
def owned_folder(prefix: str, *, parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder that this process owns, and remove it at the end; remove stale folders of its prefix first.

    `parent` is the system's temporary folder by default.
    """
    import tempfile

    parent = parent or Path(tempfile.gettempdir())
    remove_stale(parent.glob(f"{prefix}*"))
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        descriptor = own(Path(name))
        try:
            yield Path(name)
        finally:
            os.close(descriptor)


def own(folder: Path, *, shared: bool = False) -> int:
    """Own a folder, alone or together with others, until the returned descriptor is closed.

    An owned folder may be renamed. Where the file system has no locks, no process owns a folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    with suppress(LocksUnsupported, OSError):
        try_lock(descriptor, folder, shared=shared)
    return descriptor


def is_owned(folder: Path) -> bool:
    """Check whether a living process owns a folder; False if the file system has no locks."""
    return _is_free(folder) is False


def unowned(folders: Iterable[Path]) -> Iterator[Leftover]:
    """Yield the folders that no living process owns, as far as that is certain."""
    return (Leftover.at(folder) for folder in folders if _is_free(folder))


def remove_stale(folders: Iterable[Path]) -> None:
    """Remove folders without an owner in which nothing was written for a day.

    Where the file system has no locks, the age alone decides.
    """
    limit = time.time() - STALE_SECONDS
    for folder in folders:
        with suppress(OSError):  # the folder is gone, or belongs to another user
            written = max(path.lstat().st_mtime for path in (folder, *folder.iterdir()))
            if written < limit and not is_owned(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _is_free(folder: Path) -> bool | None:
    """Check whether no process has locked a folder; None if the folder is gone or cannot be locked."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        return try_lock(descriptor, folder)
    except (LocksUnsupported, OSError):
        return None
    finally:
        os.close(descriptor)
