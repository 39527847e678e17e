"""What is read from standard input before there is a task: a private folder each, later renamed to that of its task."""

from __future__ import annotations

import os
import time
from pathlib import Path

from upsert_cli.journal.files import make_folder

STALE_SECONDS = 86_400.0  # seconds without a write after which an incoming folder belongs to nobody any more
PREFIX = ".incoming-"  # no task id begins with a dot


def new_incoming(spool: Path) -> Path:
    """Makes an empty folder that only its maker knows."""
    folder = spool / f"{PREFIX}{os.urandom(8).hex()}"
    make_folder(folder)
    return folder


def remove_stale(spool: Path) -> None:
    """Removes the folders whose makers ended before there was a task."""
    import shutil

    limit = time.time() - STALE_SECONDS
    for folder in spool.glob(f"{PREFIX}*"):
        # A stream may take longer than a day, but then its file is being written.
        if max((path.lstat().st_mtime for path in (folder, *folder.iterdir())), default=0.0) < limit:
            shutil.rmtree(folder, ignore_errors=True)
