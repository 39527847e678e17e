"""What is read from standard input before there is a task: a private folder each, later renamed to that of its task."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from upsert_cli.atomic import make_folder
from upsert_cli.owned_folders import Leftover, is_owned, unowned

STALE_SECONDS = 86_400.0  # seconds without a write after which an incoming folder belongs to nobody any more
PREFIX = ".incoming-"  # no task id begins with a dot


def new_incoming(spool: Path) -> Path:
    """Makes an empty folder that only its maker knows."""
    folder = spool / f"{PREFIX}{os.urandom(8).hex()}"
    make_folder(folder)
    return folder


def remove_stale(spool: Path) -> None:
    """Remove the folders whose makers ended long ago, before there was a task."""
    import shutil

    limit = time.time() - STALE_SECONDS
    for folder in spool.glob(f"{PREFIX}*"):
        # Where the file system has no locks, the age alone tells; a file that is still being written is young.
        written = max((path.lstat().st_mtime for path in (folder, *folder.iterdir())), default=0.0)
        if written < limit and not is_owned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def leftovers(spool: Path, *, is_kept: Callable[[str], bool]) -> Iterator[Leftover]:
    """Yield what was spooled by processes that were killed before there was a task.

    Args:
        spool: The journal's folder of spools.
        is_kept: Tells whether the folder of a task's id is kept.
    """
    if spool.is_dir():
        yield from unowned(
            folder for folder in sorted(spool.iterdir()) if folder.name.startswith(PREFIX) or not is_kept(folder.name)
        )
