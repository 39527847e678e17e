"""A temporary copy of a folder that Chroma would change by opening it, or could not open.

Chroma opens a folder only where it can write to it, even if it only reads. And it upgrades a folder that an older
version wrote as soon as it opens it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from upsert_cli.errors import TargetBusy
from upsert_cli.store.chroma.database import is_older
from upsert_cli.store.chroma.upgrade import migrations_of, version_before
from upsert_cli.store.folder import DATABASE_NAME, RESERVE_BYTES, disk_full, os_fault

if TYPE_CHECKING:
    from upsert_cli.store.chroma.local import LocalFolder

COPIES = 3  # copies before a folder that keeps changing is reported as busy


def readable_copy(folder: LocalFolder, notify: Callable[[str], None]) -> AbstractContextManager[LocalFolder] | None:
    """Return a copy of database and index if Chroma would upgrade them, or may not write to one of its files."""
    lease, files = folder.lease_path(), _files(folder)
    if is_older(found := migrations_of(folder.path)):
        size = sum(size for size, _ in files.values())
        notify(f"reading a temporary copy of {-(-size >> 20)} MiB, since {version_before(found)} wrote {folder.path}")
        return _copied(folder)
    needed = {folder.path, *files, *(file.parent for file in files), *([lease] if lease.exists() else [])}
    is_read_only = bool(files) and not all(os.access(path, os.W_OK) for path in needed)
    return _copied(folder) if is_read_only else None


@contextmanager
def _copied(folder: LocalFolder) -> Iterator[LocalFolder]:
    """Copy a folder into a temporary one, change to the copy, and remove it in the end.

    Raises:
        TargetBusy: Another program kept writing to the folder.
        UpsertCliError: The temporary folder has no room for it, or a file cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="upsert-cli-", ignore_cleanup_errors=True) as name:
        copy = Path(name)
        for _ in range(COPIES):
            before = _files(folder)
            _copy(folder.path, before, copy)
            if _files(folder) == before:
                break
        else:
            raise TargetBusy(path=str(folder.path))
        os.chdir(copy)  # see `enter_folder`
        try:
            yield replace(folder, path=copy, is_copy=True)
        finally:
            os.chdir(folder.path)  # out of the copy, which is removed next


def _files(folder: LocalFolder) -> dict[Path, tuple[int, int]]:
    """Return the files of database and index, each with its size in bytes and the time of its last change."""
    index = folder.index.path()
    in_index = index.iterdir() if index is not None and index.is_dir() else ()
    stats = {file: file.stat() for file in (folder.path / DATABASE_NAME, *in_index) if file.exists()}
    return {file: (status.st_size, status.st_mtime_ns) for file, status in stats.items()}


def _copy(folder: Path, files: Mapping[Path, tuple[int, int]], copy: Path) -> None:
    needed = sum(size for size, _ in files.values()) + RESERVE_BYTES
    free = shutil.disk_usage(copy).free
    if free < needed:
        raise disk_full(copy.parent, free=free, needed=needed)
    try:
        for file in files:
            to = copy / file.relative_to(folder)
            to.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, to)  # not its mode, which may be that of a read-only file
    except OSError as error:
        raise os_fault(folder, error) from error
