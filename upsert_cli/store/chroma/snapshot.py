"""Copy what a collection consists of, to read it where its folder cannot be written.

Chroma opens a folder only where it can write to it, although it writes nothing as long as it only reads.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from upsert_cli.errors import DiskFull, TargetBusy
from upsert_cli.store.chroma.database import DATABASE_NAME, flushed_segments
from upsert_cli.store.chroma.folder import LEASE_NAME, RESERVE_BYTES, unusable

TRIES = 3  # copies, before a folder that changes all the time is reported as busy

_Stamp = tuple[Path, int, int]  # file, bytes, time of the last change


def is_read_only(folder: Path, collection: str) -> bool:
    """Check that this user may not write something that Chroma or a lease would have to write."""
    lease = folder / LEASE_NAME
    files = _files(folder, collection)
    needed = {folder, *files, *(file.parent for file in files), *([lease] if lease.exists() else [])}
    return bool(files) and not all(os.access(path, os.W_OK) for path in needed)


@contextmanager
def copied(folder: Path, collection: str) -> Iterator[Path]:
    """Copy a collection into a temporary folder, and remove it in the end.

    Raises:
        DiskFull: The temporary folder has no room for it.
        TargetBusy: Another program kept writing to it.
        TargetUnusable: A file cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="upsert-cli-", ignore_cleanup_errors=True) as name:
        copy = Path(name)
        for _ in range(TRIES):
            before = _stamps(folder, collection)
            _copy(folder, copy, before)
            if _stamps(folder, collection) == before:
                break
        else:
            raise TargetBusy(path=str(folder))
        yield copy


def _files(folder: Path, collection: str) -> list[Path]:
    database = folder / DATABASE_NAME
    if not database.exists():
        return []
    segments = (folder / segment for segment in flushed_segments(folder, collection))
    return [database, *(file for segment in segments if segment.is_dir() for file in sorted(segment.iterdir()))]


def _stamps(folder: Path, collection: str) -> list[_Stamp]:
    stats = [(file, file.stat()) for file in _files(folder, collection)]
    return [(file, status.st_size, status.st_mtime_ns) for file, status in stats]


def _copy(folder: Path, copy: Path, stamps: list[_Stamp]) -> None:
    needed = sum(size for _, size, _ in stamps) + RESERVE_BYTES
    free = shutil.disk_usage(copy).free
    if free < needed:
        raise DiskFull(path=str(copy.parent), free=free, needed=needed)
    try:
        for file, _, _ in stamps:
            to = copy / file.relative_to(folder)
            to.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, to)  # not its mode, which may be that of a read-only file
    except OSError as error:
        raise unusable(folder, error) from error
