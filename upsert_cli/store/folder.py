"""The folder of a local store: created privately, with room for what is to come; errors of the system in words."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from upsert_cli.errors import UpsertCliError

LEASE_NAME = ".upsert-cli.lock"
FOLDER_MODE = 0o700
ROW_BYTES = 6 << 10  # bytes of disk a row; measured 5.5 KB with 384 numbers and 500 characters
RESERVE_BYTES = 64 << 20  # bytes left alone: on a full disk Chroma loses index data without an error
RESERVE_FILES = 16  # files left alone: an index has five in a folder of its own, and sqlite creates some for moments
SCRATCH_BYTES = 16 << 20  # bytes below which a temporary folder is taken for full; a batch's statements need less
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def prepare_folder(path: Path) -> bool:
    """Create the folder for this user alone if it is missing, and return whether it is private.

    Raises:
        UpsertCliError: It is not a folder, or may not be created.
    """
    try:
        _create(path)
        return not path.stat().st_mode & 0o077
    except OSError as error:
        raise os_fault(path, error) from error


def _create(path: Path) -> None:
    if path.is_dir():
        return
    if not path.parent.exists():
        _create(path.parent)
    path.mkdir(mode=FOLDER_MODE)
    path.chmod(FOLDER_MODE)  # the umask may have removed bits


# -- space -------------------------------------------------------------------------------------------------------------


def require_space(path: Path, *, rows: int) -> None:
    """Check that there is room for `rows` more rows and a reserve.

    Raises:
        UpsertCliError: There is not.
    """
    free, needed = _free(path), rows * ROW_BYTES + RESERVE_BYTES
    if free < needed or not _takes_files(path):
        raise disk_full(path, free=free, needed=needed)


def why_full(path: Path) -> UpsertCliError:
    """Return the error for a database in `path` that found no room, there or in its temporary folder."""
    free, scratch = _free(path), _scratch()
    if free >= RESERVE_BYTES and scratch is not None and (left := shutil.disk_usage(scratch).free) < SCRATCH_BYTES:
        return disk_full(scratch, free=left, needed=SCRATCH_BYTES)
    return disk_full(path, free=free, needed=RESERVE_BYTES)


def disk_full(path: Path, *, free: int, needed: int) -> UpsertCliError:
    """Return the error that says how much room there is at `path`; `free` and `needed` in bytes."""
    what = f"has {free >> 20} MiB free and {needed >> 20} MiB are needed"
    if free >= needed:
        what = "takes no more, though its disk is not full: there is a quota, or there are too many files"
    return UpsertCliError(message=f"{path} {what}; make room, then restart the task: all that was written is safe")


def _free(path: Path) -> int:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(there).free


def _takes_files(path: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return True
    disk = os.statvfs(path)
    return not disk.f_files or disk.f_favail >= RESERVE_FILES  # some file systems count no files


def _scratch() -> Path | None:
    """Return the temporary folder that sqlite uses, in the order of its documentation."""
    named = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp")  # noqa: S108
    return next((Path(name) for name in named if name and os.access(name, os.W_OK | os.X_OK)), None)


# -- errors ------------------------------------------------------------------------------------------------------------


def os_fault(path: Path, error: OSError) -> UpsertCliError:
    """Return the error that tells a user what to do about an error of the system at `path`."""
    if error.errno in _NO_SPACE:
        return disk_full(path, free=_free(path), needed=RESERVE_BYTES)
    return unusable(
        error.filename or path,
        reason=error.strerror or type(error).__name__,
        remedy="give this user access, or choose another folder with --chroma",
    )


def unusable(path: Path | str, *, reason: str, remedy: str) -> UpsertCliError:
    """Return the error for a location that exists but cannot be used."""
    return UpsertCliError(message=f"{path} cannot be used: {reason}; {remedy}")
