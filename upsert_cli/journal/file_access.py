"""Access to the journal's files: errors of the system become errors that name the file and a remedy; short locks."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from upsert_cli.atomic import make_folder, open_private
from upsert_cli.errors import JournalUnreadable, JournalUnwritable, UpsertCliError
from upsert_cli.locks import lock_within

LOCK_SECONDS = 30.0  # seconds to wait for a lock that is held for milliseconds; longer means a suspended process


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn an error of the system while `path` is written into one that names the file and a remedy."""
    try:
        yield
    except OSError as error:
        raise JournalUnwritable(path=str(error.filename or path), reason=_reason(error)) from error


@contextmanager
def reading_from(path: Path) -> Iterator[None]:
    """Turn an error of the system while `path` is read into one that names the file; let a missing file pass."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise JournalUnreadable(path=str(error.filename or path), reason=_reason(error)) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that is meant for milliseconds. Its file is never removed, since others may be about to lock it.

    Raises:
        UpsertCliError: Another process does not release it.
    """
    with writing_to(path):
        descriptor = _open_lock(path)
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


def _open_lock(path: Path) -> int:
    try:
        return open_private(path, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:
        make_folder(path.parent)
        return open_private(path, os.O_RDWR | os.O_CREAT)


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a symbolic link, which the journal does not follow"
    return error.strerror or type(error).__name__
