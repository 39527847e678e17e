"""Files that are written whole or not at all: files that the user names, and private files of this tool.

Only the user can read a private file, with any umask, and it is never opened through a symbolic link.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

FOLDER_MODE = 0o700
FILE_MODE = 0o600
STALE_SECONDS = 24 * 3600  # seconds; no process takes that long to write a file
NAME_BYTES = 8  # random bytes of a temporary name

# Windows has neither flag, and nothing is written there, since it has no flock either.
_ALWAYS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def write_out(path: Path, content: str) -> None:
    """Replace a file that the user named, in one step; see `writing_out`.

    Raises:
        OSError: The file cannot be written, and keeps its content.
    """
    with writing_out(path) as file:
        file.write(content.encode())


@contextmanager
def writing_out(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file, which replaces a file that the user named unless the block raises.

    A pipe or a device is written directly.

    Raises:
        OSError: The file cannot be written, and keeps its content.
    """
    if path.exists() and not path.is_file():  # by its own name, since the target of /dev/stdout may have no path
        with path.open("wb") as file:
            yield file
        return
    target = path.resolve()  # a symbolic link stays
    # Hidden and with another suffix, since other programs may watch the folder; and random, since in a container a
    # killed process may have had the same process id.
    temporary = target.with_name(f".{target.name}.{os.urandom(NAME_BYTES).hex()}.tmp")
    _remove_stale(target)
    try:
        with temporary.open("xb") as file:  # with the permissions of the user's umask
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with suppress(OSError):  # the first error counts, and a later call removes the file
            temporary.unlink()
        raise


def _remove_stale(target: Path) -> None:
    """Remove the temporary files that killed processes left next to a file."""
    import glob

    limit = time.time() - STALE_SECONDS
    for path in target.parent.glob(f".{glob.escape(target.name)}.{'[0-9a-f]' * 2 * NAME_BYTES}.tmp"):
        with suppress(OSError):  # it is gone, or another user's
            if path.lstat().st_mtime < limit:
                path.unlink()


def make_folder(path: Path) -> None:
    """Make a private folder, and its missing parents."""
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        if path.is_symlink() or not path.is_dir():
            raise
    except FileNotFoundError:
        if path.parent.is_dir():
            raise  # from a file system that takes no folders, such as /proc
        make_folder(path.parent)
        make_folder(path)
    else:
        path.chmod(FOLDER_MODE)  # the umask may have taken bits away


def open_private(path: Path, flags: int) -> int:
    """Open a private file; a new file gets its permissions."""
    descriptor = os.open(path, flags | _ALWAYS, FILE_MODE)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # Windows has no fchmod before Python 3.13; the lock then reports that there can be no journal.
    if flags & os.O_CREAT and mode & 0o777 != FILE_MODE and hasattr(os, "fchmod"):
        os.fchmod(descriptor, FILE_MODE)
    return descriptor


def read_whole(path: Path) -> bytes:
    """Return the content of a private file."""
    with os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
        return file.read()


def write_all(descriptor: int, content: bytes) -> None:
    """Write all of `content`, even if the system takes only some of it at a time."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def replacing(path: Path, *, durable: bool, backup: Path | None = None) -> Iterator[int]:
    """Yield the descriptor of a new private file, which replaces `path` unless the block raises.

    Only one process at a time may replace a path.

    Args:
        path: The file to replace or create.
        durable: Whether the new content survives a power failure after the block.
        backup: The new name of the replaced file.
    """
    temporary = path.with_name(f"{path.name}.tmp")  # always the same, so that crashes leave at most one such file
    descriptor = open_private(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        yield descriptor
        if durable:
            os.fsync(descriptor)
        if backup is not None:
            keep_backup(path, backup)
        temporary.replace(path)
        if durable:
            sync(path.parent)
    except BaseException:
        with suppress(OSError):  # the first error counts, and the next call truncates the file
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, *, durable: bool) -> None:
    """Give a private file new content; see `replacing`."""
    with replacing(path, durable=durable) as descriptor:
        write_all(descriptor, content)


def keep_backup(path: Path, backup: Path) -> None:
    """Make `backup` a second name of `path`, or a copy if the file system has no hard links."""
    # Not by a rename, which does nothing to two names of one file, so that a crash would block all later writes.
    with suppress(FileNotFoundError):
        backup.unlink()
    try:
        os.link(path, backup)
    except OSError as error:
        if not path.exists():
            return  # the first generation
        if error.errno not in _NO_HARD_LINKS:
            raise
        replace_file(backup, read_whole(path), durable=True)


def move_aside(path: Path) -> Path:
    """Rename a damaged file to a free name, and return its new path."""
    base = aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    number = 1
    while aside.exists():
        number += 1
        aside = base.with_name(f"{base.name}-{number}")
    path.rename(aside)
    return aside


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # from a file system that cannot sync folders
            raise
    finally:
        os.close(descriptor)
