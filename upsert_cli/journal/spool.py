"""Standard input, kept so that a restart can read it again: in a private folder, later renamed to that of its task."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from upsert_cli.atomic import make_folder
from upsert_cli.journal.files import writing_to
from upsert_cli.owned_folders import Leftover, is_owned, own, unowned

if TYPE_CHECKING:
    from upsert_cli.journal.journal import Journal

STALE_SECONDS = 86_400.0  # seconds without a write after which an incoming folder has no owner any more
PREFIX = ".incoming-"  # no task id begins with a dot


def incoming_folder(journal: Journal) -> Path:
    """Make a private folder for standard input that is read before there is a task; owned until `journal.close`."""
    spool = journal.layout.spool
    with journal.layout.allocation(), writing_to(spool):
        _remove_stale(spool)
        incoming = _new_incoming(spool)
        journal.owned.append(own(incoming))
        return incoming


def adopt_spool(journal: Journal, incoming: Path, task_id: str) -> Path:
    """Make an incoming folder the spool of a task that is about to be created, and return its new path.

    Raises:
        TaskExists: The id is taken.
    """
    target = journal.files(task_id).spool
    with journal.layout.allocation(), writing_to(target):
        journal.refuse_taken(task_id)
        if target.exists():  # left by a process that was killed before there was a task
            target.rename(_new_incoming(target.parent))
        return incoming.rename(target)


def spool_leftovers(spool: Path, *, is_kept: Callable[[str], bool]) -> list[Leftover]:
    """Return the spools of processes that were killed before there was a task; `is_kept` takes a task's id."""
    if not spool.is_dir():
        return []
    folders = sorted(spool.iterdir())
    return [*unowned(folder for folder in folders if folder.name.startswith(PREFIX) or not is_kept(folder.name))]


def _new_incoming(spool: Path) -> Path:
    folder = spool / f"{PREFIX}{os.urandom(8).hex()}"
    make_folder(folder)
    return folder


def _remove_stale(spool: Path) -> None:
    import shutil

    limit = time.time() - STALE_SECONDS
    for folder in spool.glob(f"{PREFIX}*"):
        # Where the file system has no locks, only the age tells; a file that is being written is young.
        written = max((path.lstat().st_mtime for path in (folder, *folder.iterdir())), default=0.0)
        if written < limit and not is_owned(folder):
            shutil.rmtree(folder, ignore_errors=True)
