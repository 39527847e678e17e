"""The journal's way with files: private whatever the umask, never through a link, whole or not at all, under a lock."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from upsert_cli.errors import JournalBusy, JournalUnreadable, JournalUnwritable, LocksUnsupported

FOLDER_MODE = 0o700
FILE_MODE = 0o600
LOCK_SECONDS = 30.0  # seconds to wait for a lock that is held for milliseconds; longer means a suspended process
FIRST_PAUSE = 0.001  # seconds between two tries for a lock, doubled up to the longest
LONGEST_PAUSE = 0.016

# Windows has neither flag; nothing is written there, since there is no flock either.
_ALWAYS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turns what the system says while `path` is written into an error that a user can act on."""
    try:
        yield
    except OSError as error:
        raise JournalUnwritable(path=str(error.filename or path), reason=_reason(error)) from error


@contextmanager
def reading_from(path: Path) -> Iterator[None]:
    """Turns what the system says while `path` is read into an error that a user can act on; a missing file passes."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise JournalUnreadable(path=str(error.filename or path), reason=_reason(error)) from error


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it that are missing, for this user alone."""
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        if path.is_symlink() or not path.is_dir():
            raise
    except FileNotFoundError:
        if path.parent.is_dir():
            raise  # of a file system that takes no folders, such as /proc
        make_folder(path.parent)
        make_folder(path)
    else:
        path.chmod(FOLDER_MODE)  # the umask may have taken bits away


def open_private(path: Path, flags: int) -> int:
    """Opens a file, never through a symbolic link; where it is created, for this user alone."""
    descriptor = os.open(path, flags | _ALWAYS, FILE_MODE)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    # Windows has no fchmod before Python 3.13; it is told at the lock that it cannot have a journal.
    if flags & os.O_CREAT and mode & 0o777 != FILE_MODE and hasattr(os, "fchmod"):
        os.fchmod(descriptor, FILE_MODE)
    return descriptor


def read_whole(path: Path) -> bytes:
    """Returns the content of a file."""
    with os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
        return file.read()


def write_all(descriptor: int, content: bytes) -> None:
    """Writes all of `content`, also where the system takes it in parts."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def replace_file(path: Path, content: bytes, *, durable: bool, backup: Path | None = None) -> int:
    """Gives a file new content, whole or not at all; only the holder of its lock may call this.

    Args:
        path: What to replace or create.
        content: All of the new content.
        durable: Whether the content has to survive a power failure from now on.
        backup: Becomes a second name of the generation that is replaced.

    Returns:
        An open descriptor of the new file; as long as it is open, no other file gets the same inode number.
    """
    temporary = path.with_name(f"{path.name}.tmp")  # one name, so that crashes leave at most one such file
    descriptor = open_private(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(descriptor, content)
        if durable:
            os.fsync(descriptor)
        if backup is not None:
            keep_generation(path, backup)
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except BaseException:
        os.close(descriptor)
        with suppress(OSError):  # it is in nobody's way, and the first error is the one that counts
            temporary.unlink()
        raise
    return descriptor


def keep_generation(path: Path, backup: Path) -> None:
    """Makes `backup` a second name of `path`, or a copy where the file system knows no second names."""
    # Never by rename: of two names of one file that is a no-op, and after a crash it would block all later writes.
    with suppress(FileNotFoundError):
        backup.unlink()
    try:
        os.link(path, backup)
    except OSError as error:
        if not path.exists():
            return  # the first generation
        if error.errno not in _NO_HARD_LINKS:
            raise
        os.close(replace_file(backup, read_whole(path), durable=True))


def move_aside(path: Path) -> Path:
    """Renames a damaged file, so that it is in nobody's way and nothing of it is lost; returns its new path."""
    first = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    tries = itertools.chain([first], (first.with_name(f"{first.name}-{number}") for number in itertools.count(2)))
    aside = next(each for each in tries if not each.exists())
    path.rename(aside)
    return aside


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system cannot do that for folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock that is meant for milliseconds.

    This is flock itself rather than the `filelock` package, whose import costs 30 ms of CPU, nearly as much as click
    and tinydb together; and which, where there is no flock, falls back to a lock that outlives its holder.

    Raises:
        JournalBusy: Another process does not let go of it.
    """
    with writing_to(path):
        descriptor = _open_lock(path)
    try:
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> int:
    try:
        return open_private(path, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:
        make_folder(path.parent)
        return open_private(path, os.O_RDWR | os.O_CREAT)


def _lock(descriptor: int, path: Path) -> None:
    until = time.monotonic() + LOCK_SECONDS
    pause = FIRST_PAUSE
    # In short steps rather than one wait, so that a suspended holder ends in an error.
    while not _take(descriptor, path):
        if time.monotonic() >= until:
            raise JournalBusy(path=str(path), seconds=LOCK_SECONDS)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _take(descriptor: int, path: Path) -> bool:
    try:
        import fcntl
    except ImportError as error:
        raise LocksUnsupported(path=str(path)) from error
    with writing_to(path):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "it is a symbolic link, which the journal does not follow"
    return error.strerror or type(error).__name__
