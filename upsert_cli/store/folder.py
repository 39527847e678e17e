"""The folder of a local Chroma: made, and with room for what is to come."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from upsert_cli.errors import DiskFull, TargetUnusable, UpsertCliError

LEASE_NAME = ".upsert-cli.lock"
FOLDER_MODE = 0o700
ROW_BYTES = 6 << 10  # bytes of disk a row; measured 5.5 KB with 384 numbers and 500 characters (measured)
RESERVE_BYTES = 64 << 20  # bytes left alone: on a full disk Chroma loses index data without an error
RESERVE_FILES = 16  # files left alone: an index has five in a folder of its own, and sqlite makes some for moments
SCRATCH_BYTES = 16 << 20  # bytes below which a temporary folder is taken for full; a batch's statements need less
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_GIVE_ACCESS = "give this user access, or choose another folder with --chroma"


def prepare_folder(path: Path) -> bool:
    """Makes the folder for this user alone where it is missing, and returns whether it is private.

    Raises:
        TargetUnusable: It is no folder, or may not be made.
    """
    try:
        _make(path)
        return not path.stat().st_mode & 0o077
    except OSError as error:
        raise unusable(path, error) from error


def _make(path: Path) -> None:
    if path.is_dir():
        return
    if not path.parent.exists():
        _make(path.parent)
    path.mkdir(mode=FOLDER_MODE)
    path.chmod(FOLDER_MODE)  # the umask may have taken bits away


def require_space(path: Path, *, rows: int) -> None:
    """Makes sure that there is room for `rows` more rows and a reserve.

    Raises:
        DiskFull: There is not.
    """
    full = disk_full(path, rows=rows)
    if full.free < full.needed or not _takes_files(path):
        raise full


def _takes_files(path: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return True
    disk = os.statvfs(path)
    return not disk.f_files or disk.f_favail >= RESERVE_FILES  # some file systems count no files


def disk_full(path: Path, *, rows: int = 0) -> DiskFull:
    """Returns the error that says how much room there is at `path`, and how much `rows` more rows need."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return DiskFull(path=str(path), free=shutil.disk_usage(there).free, needed=rows * ROW_BYTES + RESERVE_BYTES)


def why_full(path: Path) -> DiskFull:
    """Returns the error for a database in `path` that found no room, there or where it keeps what is temporary."""
    full = disk_full(path)
    if full.free >= full.needed and (scratch := _scratch()) is not None:
        room = DiskFull(path=str(scratch), free=shutil.disk_usage(scratch).free, needed=SCRATCH_BYTES)
        return room if room.free < room.needed else full
    return full


def _scratch() -> Path | None:
    """Returns the temporary folder that sqlite takes, in the order of its documentation."""
    named = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp")  # noqa: S108
    return next((Path(name) for name in named if name and os.access(name, os.W_OK | os.X_OK)), None)


def unusable(path: Path, error: OSError) -> UpsertCliError:
    """Returns what a user can do about an error of the system at `path`."""
    if error.errno in _NO_SPACE:
        return disk_full(path)
    return TargetUnusable(
        path=str(error.filename or path), reason=error.strerror or type(error).__name__, remedy=_GIVE_ACCESS
    )
