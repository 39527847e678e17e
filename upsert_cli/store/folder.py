"""The folder of a local store: private, with room for new rows, and not open in any other program.

An idle Chroma server, or a notebook with a client, keeps a copy of the vector index in memory. At its next flush it
writes that copy over ours, and neither program reports an error. Such a process holds no lock, but its open files show.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from upsert_cli.errors import UpsertCliError, reason_of

DATABASE_NAME = "chroma.sqlite3"
INDEX_NAMES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle")
LEASE_NAME = ".upsert-cli.lock"
FOLDER_MODE = 0o700
ROW_BYTES = 6 << 10  # bytes of disk a row; measured 5.5 KB with 384 numbers and 500 characters
RESERVE_BYTES = 64 << 20  # bytes left alone: on a full disk Chroma loses index data without an error
RESERVE_FILES = 16  # files left alone: a new index has a folder and five files, and sqlite creates some for moments
SCRATCH_BYTES = 16 << 20  # bytes below which a temporary folder is taken for full; a batch's statements need less
MOMENT_SECONDS = 0.25  # seconds for which a program may have a file open without using the collection, such as a backup
SEARCH_SECONDS = 1.0  # seconds that a search of all processes may take; 5,000 processes take 0.3 (measured)
STEP_SECONDS = 0.05  # seconds between two searches of the same processes

WRITER_PROGRAM = "from upsert_cli.store.child import main; main()"
"""The code that our child processes run. Leases keep them apart, and those that only read never write."""

_NO_FOLDER = {errno.EEXIST, errno.ENOTDIR}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_PROC = Path("/proc")


def enter_folder(path: Path, *, option: str = "--chroma") -> None:
    """Change to a folder, which is created for this user alone if it is missing.

    chromadb reads the .env file of the working folder when it is imported. In a private folder, files that this process
    creates are private too.
    """
    is_private = prepare_folder(path, option=option)
    try:
        os.chdir(path)
    except OSError as error:
        raise os_fault(path, error, option=option) from error
    if is_private:
        os.umask(0o077)


def prepare_folder(path: Path, *, option: str = "--chroma") -> bool:
    """Create a folder for this user alone if it is missing, and return whether it is private.

    Raises:
        UpsertCliError: The path is not a folder, or the folder may not be created; `option` names another one.
    """
    try:
        _create(path)
        return not path.stat().st_mode & 0o077
    except OSError as error:
        raise os_fault(path, error, option=option) from error


def _create(path: Path) -> None:
    if path.is_dir():
        return
    if not path.parent.exists():
        _create(path.parent)
    path.mkdir(mode=FOLDER_MODE, exist_ok=True)  # another load may create it at this moment
    path.chmod(FOLDER_MODE)  # the umask may have removed bits


# -- space -------------------------------------------------------------------------------------------------------------


def require_space(path: Path, *, rows: int) -> None:
    """Check that the disk has room for `rows` more rows and a reserve.

    Raises:
        UpsertCliError: The disk is too full, or takes no more files.
    """
    free, needed = _free(path), rows * ROW_BYTES + RESERVE_BYTES
    try:
        disk = os.statvfs(path)
    except OSError as error:  # somebody has removed the folder
        raise os_fault(path, error) from error
    if free < needed or (disk.f_files and disk.f_favail < RESERVE_FILES):  # some file systems count no files
        raise disk_full(path, free=free, needed=needed)


def why_full(path: Path) -> UpsertCliError:
    """Return the error for a database in `path` that found no room, in its folder or in a temporary one."""
    # The folders that sqlite uses, in the order of its documentation.
    named = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp")  # noqa: S108
    scratch = next((Path(name) for name in named if name and os.access(name, os.W_OK | os.X_OK)), None)
    free = _free(path)
    if free >= RESERVE_BYTES and scratch is not None and (left := shutil.disk_usage(scratch).free) < SCRATCH_BYTES:
        return disk_full(scratch, free=left, needed=SCRATCH_BYTES)
    return disk_full(path, free=free, needed=RESERVE_BYTES)


def disk_full(path: Path, *, free: int, needed: int) -> UpsertCliError:
    """Return the error for a lack of room in `path`; `free` and `needed` are in bytes."""
    what = f"has {free >> 20} MiB free and {needed >> 20} MiB are needed"
    if free >= needed:
        what = "takes no more, though its disk is not full: there is a quota, or there are too many files"
    return UpsertCliError(message=f"{path} {what}; make room, then restart the task: all that was written is safe")


def _free(path: Path) -> int:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(there).free


# -- errors ------------------------------------------------------------------------------------------------------------


def os_fault(path: Path, error: OSError, *, option: str = "--chroma") -> UpsertCliError:
    """Return an error with a remedy for an error of the system at `path`."""
    if error.errno in _NO_SPACE:
        return disk_full(path, free=_free(path), needed=RESERVE_BYTES)
    other = f"choose another folder with {option}"
    if error.errno in _NO_FOLDER:
        return unusable(error.filename or path, reason="part of the path is not a folder", remedy=other)
    return unusable(error.filename or path, reason=reason_of(error), remedy=f"give this user access, or {other}")


def unusable(path: Path | str, *, reason: str, remedy: str) -> UpsertCliError:
    """Return the error for a location that exists but cannot be used."""
    return UpsertCliError(message=f"{path} cannot be used: {reason}; {remedy}")


# -- other programs ----------------------------------------------------------------------------------------------------


def find_openers(folder: Path, *, patience: float = MOMENT_SECONDS) -> dict[int, str]:
    """Return, by process id, the names of other programs that have a folder's database or index files open.

    Processes of other users or containers may be invisible. A program that closes the files within `patience` seconds
    is not returned.
    """
    paths = [folder / DATABASE_NAME, *(path for name in INDEX_NAMES for path in folder.glob(f"*/{name}"))]
    search: Callable[[list[Path], Collection[int] | None], dict[int, str]] = (
        _search_proc if _PROC.is_dir() else _ask_lsof
    )
    found = search(paths, None) if paths[0].exists() else {}
    until = time.monotonic() + patience
    while found and time.monotonic() < until:
        time.sleep(STEP_SECONDS)
        found = search(paths, found)
    return found


def _search_proc(paths: list[Path], pids: Collection[int] | None) -> dict[int, str]:
    """Return the openers among all processes, or among some, as Linux shows them."""
    files = set()
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            files.add((status.st_dev, status.st_ino))
    until = time.monotonic() + SEARCH_SECONDS
    found: dict[int, str] = {}
    running = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    for pid in running if pids is None else pids:
        if time.monotonic() >= until:
            break
        with suppress(OSError):  # it ended, or is of another user
            process = _PROC / str(pid)
            if pid != os.getpid() and _has_open(process, files) and not _is_ours(process):
                found[pid] = (process / "comm").read_text(errors="replace").strip()
    return found


def _has_open(process: Path, files: Collection[tuple[int, int]]) -> bool:
    """Return whether a process has one of the files open: by device and inode, which any path or link leads to."""
    with os.scandir(process / "fd") as descriptors:
        for descriptor in descriptors:
            with suppress(OSError):
                # Most open files are sockets, pipes and devices, whose names begin with no slash.
                # Without `Path`, which would double the time for thousands of processes.
                if os.readlink(descriptor.path).startswith("/"):  # noqa: PTH115
                    status = os.stat(descriptor.path)  # noqa: PTH116
                    if (status.st_dev, status.st_ino) in files:
                        return True
    return False


def _is_ours(process: Path) -> bool:
    return WRITER_PROGRAM.encode() in (process / "cmdline").read_bytes().split(b"\0")


def _ask_lsof(paths: list[Path], pids: Collection[int] | None) -> dict[int, str]:
    """Return the openers that `lsof` finds, which compares devices and inodes too; none if it is not installed."""
    if (program := shutil.which("lsof")) is None:
        return {}
    chosen = [] if pids is None else ["-a", "-p", ",".join(map(str, pids))]
    found: dict[int, str] = {}
    pid = 0
    for line in _output([program, "-nPw", "-F", "pc", *chosen, "--", *map(str, paths)]):
        if line.startswith("p"):
            pid = int(line[1:])
        elif line.startswith("c") and pid != os.getpid():
            found[pid] = line[1:]
    listed = _output(["ps", "-ww", "-o", "pid=,args=", "-p", ",".join(map(str, found))]) if found else []
    ours = {int(line.split(maxsplit=1)[0]) for line in listed if WRITER_PROGRAM in line}
    return {pid: program for pid, program in found.items() if pid not in ours}


def _output(command: list[str]) -> list[str]:
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=SEARCH_SECONDS, check=False)
        return done.stdout.splitlines()
    return []
