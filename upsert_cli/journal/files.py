"""Reading, writing, locking and removing files of a journal, with errors that name the file and a remedy."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from upsert_cli.atomic import make_folder, open_private, read_whole, replace_file, sync
from upsert_cli.errors import JournalUnreadable, JournalUnwritable, UpsertCliError, reason_of
from upsert_cli.locks import lock_within

LOCK_SECONDS = 30.0  # seconds to wait for a lock that is held for milliseconds, unless its holder is suspended


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an operating system error in the block, which writes to `path`, into `JournalUnwritable`."""
    try:
        yield
    except OSError as error:
        raise JournalUnwritable(path=str(error.filename or path), reason=_reason(error)) from error


@contextmanager
def reading_from(path: Path) -> Iterator[None]:
    """Turn an operating system error in the block, which reads `path`, into `JournalUnreadable`."""
    try:
        yield
    except FileNotFoundError:
        raise  # the caller knows what a missing file means
    except OSError as error:
        raise JournalUnreadable(path=str(error.filename or path), reason=_reason(error)) from error


def read_json(path: Path) -> Any:
    """Return the value in a JSON file, or None if the file is missing or torn."""
    with suppress(FileNotFoundError, RecursionError, ValueError), reading_from(path):
        return json.loads(read_whole(path))
    return None


def write_json(path: Path, value: object, *, durable: bool) -> None:
    """Replace a JSON file, whole or not at all; its folder has to exist. See `replacing` about `durable`."""
    with writing_to(path):
        replace_file(path, json.dumps(value).encode("ascii"), durable=durable)


def open_or_create(path: Path) -> int:
    """Open a private file for reading and writing; make it and its folder if they are missing."""
    with writing_to(path):
        make_folder(path.parent)
        return open_private(path, os.O_RDWR | os.O_CREAT)


def drop_note(path: Path) -> None:
    """Remove the note about a change that had several steps, which is complete now, also after a power failure."""
    with writing_to(path), suppress(FileNotFoundError):
        path.unlink()
        sync(path.parent)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock for milliseconds. Its file is never removed, since other processes may be about to lock it.

    Raises:
        UpsertCliError: Another process does not release the lock.
    """
    descriptor = open_or_create(path)
    try:
        with writing_to(path):
            is_mine = lock_within(descriptor, path, seconds=LOCK_SECONDS)
        if not is_mine:
            raise UpsertCliError(
                message=f"another process has kept {path} locked for {LOCK_SECONDS:.0f} seconds; "
                f"look for an upsert-cli that is suspended or hangs, then try again"
            )
        yield
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a symbolic link, which the journal does not follow"
    return reason_of(error)


def remove(paths: Iterable[Path], *, until: float | None = None) -> None:
    """Remove files and folders; with `until`, only those that were not written after that moment."""
    for path in paths:
        with writing_to(path), suppress(FileNotFoundError):
            if until is not None and written_at(path) > until:
                continue
            if path.is_dir():
                import shutil  # late: most commands remove no folder

                shutil.rmtree(path)
            else:
                path.unlink()


def written_at(path: Path) -> float:
    """Return when a file was last written, or the newest file in a folder, in seconds since 1970."""
    # Not the folder's own time, which also changes when a file in the folder is removed.
    files = path.iterdir() if path.is_dir() else iter([path])
    return max((file.lstat().st_mtime for file in files), default=0.0)
