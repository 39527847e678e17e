"""Folders and files of this machine, and their names as valid Unicode."""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Collection, Hashable, Sequence
from pathlib import Path

from upsert_cli.errors import SourceUnreadable, reason_of
from upsert_cli.sources.source_faults import not_found
from upsert_cli.sources.tree import Tree, TreePath, divided_at_glob

MISSING = (errno.ENOENT, errno.ENOTDIR)  # the errors for a path that does not exist
DANGLING = (*MISSING, errno.ELOOP)  # the errors for a link that leads nowhere, or in a circle


def locate(name: str) -> Path | DiskTree:
    """Return the file of a name, or the tree of a folder or a glob.

    The name of an existing file is not a glob, although it may have stars.

    Raises:
        UsageFault: There is no file or folder of this name.
        SourceUnreadable: The path cannot be accessed.
    """
    if not name:  # for Path the current folder, but for a user a shell variable that was not set
        raise not_found("''")
    path = Path(name)
    try:
        status = status_of(path, absent=MISSING)
    except ValueError:  # NUL, or a name that no file system can encode
        raise not_found(ascii(name)) from None
    if status is not None:
        return DiskTree(name, path) if stat.S_ISDIR(status.st_mode) else path
    if not glob.has_magic(name):
        raise not_found(valid_unicode(name))
    folder, pattern = divided_at_glob(path.parts)
    return DiskTree(name, Path(*folder), pattern)


class DiskTree(Tree):
    """A folder of this machine."""

    globs_match_folders = True

    def __init__(self, name: str, root: Path, pattern: Sequence[str] = ()) -> None:
        super().__init__(valid_unicode(name), pattern)
        self._root = root

    def name_of(self, path: TreePath) -> str:
        """Return the name that the user would give a path."""
        return valid_unicode(str(self._path(path)))

    def file_at(self, path: TreePath) -> Path | None:
        """Return a regular file, or None for any other: a pipe would block."""
        found = self._path(path)
        status = status_of(found)
        return found if status is not None and stat.S_ISREG(status.st_mode) else None

    def is_folder(self, path: TreePath) -> bool:
        """Check whether a path leads to a folder, or to a link to one."""
        status = status_of(self._path(path))
        return status is not None and stat.S_ISDIR(status.st_mode)

    def is_file(self, path: TreePath) -> bool:
        """Check whether a path leads to anything but a folder."""
        status = status_of(self._path(path))
        return status is not None and not stat.S_ISDIR(status.st_mode)

    def names_in(self, folder: TreePath) -> tuple[list[str], list[str]]:
        """Return the names in a folder; raise SourceUnreadable if the user may not read it."""
        folders: list[str] = []
        files: list[str] = []
        path = self._path(folder)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    (folders if _leads_to_folder(entry) else files).append(entry.name)
        except OSError as error:
            raise _inaccessible(path, error) from error
        return sorted(folders), sorted(files)

    def identity(self, folder: TreePath) -> Hashable | None:
        """Return device and inode."""
        status = status_of(self._path(folder))
        return None if status is None else (status.st_dev, status.st_ino)

    def _path(self, parts: TreePath) -> Path:
        return self._root.joinpath(*parts)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def identity_of(path: Path) -> tuple[Hashable, bool]:
    """Return a value that is equal for the same file under another name, and whether the file is a pipe.

    Raises:
        SourceUnreadable: The path cannot be accessed, or is neither a regular file nor a pipe.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _inaccessible(path, error) from error
    is_pipe = stat.S_ISFIFO(status.st_mode)
    if not is_pipe and not stat.S_ISREG(status.st_mode):
        raise SourceUnreadable(name=valid_unicode(str(path)), reason="neither a file nor a folder nor a pipe")
    return (status.st_dev, status.st_ino), is_pipe


def status_of(path: Path, *, absent: Collection[int] = DANGLING) -> os.stat_result | None:
    """Return the status of a file, or None if the error is one of `absent`.

    Raises:
        SourceUnreadable: The path cannot be accessed.
    """
    try:
        return path.stat()
    except OSError as error:
        if error.errno in absent:
            return None
        raise _inaccessible(path, error) from error


def valid_unicode(name: str) -> str:
    r"""Return a file name as text that can be encoded; bytes that are not UTF-8 become `\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _inaccessible(path: Path, error: OSError) -> SourceUnreadable:
    return SourceUnreadable(name=valid_unicode(str(path)), reason=reason_of(error))
