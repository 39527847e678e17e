"""Folders and files of this machine, and their names as valid Unicode."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Hashable
from pathlib import Path

from upsert_cli.errors import SourceUnreadable, reason_of
from upsert_cli.sources.tree import Tree, TreePath

MISSING = (errno.ENOENT, errno.ENOTDIR)  # the errors for a path that does not exist
DANGLING = (*MISSING, errno.ELOOP)  # the errors for a link that leads nowhere, or in a circle


class DiskTree(Tree):
    """A folder of this machine."""

    globs_match_folders = True

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def path(self, parts: TreePath) -> Path:
        """Return a path in the file system."""
        return self._root.joinpath(*parts)

    def name(self, path: TreePath) -> str:
        """Return the name that the user would give a path."""
        return valid_unicode(str(self.path(path)))

    def is_folder(self, path: TreePath) -> bool:
        """Check whether a path leads to a folder, or to a link to one."""
        status = status_of(self.path(path))
        return status is not None and stat.S_ISDIR(status.st_mode)

    def is_file(self, path: TreePath) -> bool:
        """Check whether a path leads to anything but a folder."""
        status = status_of(self.path(path))
        return status is not None and not stat.S_ISDIR(status.st_mode)

    def names_in(self, folder: TreePath) -> tuple[list[str], list[str]]:
        """Return the names in a folder; raise SourceUnreadable if the user may not read it."""
        folders: list[str] = []
        files: list[str] = []
        path = self.path(folder)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    (folders if _leads_to_folder(entry) else files).append(entry.name)
        except OSError as error:
            raise _inaccessible(path, error) from error
        return sorted(folders), sorted(files)

    def identity(self, folder: TreePath) -> Hashable | None:
        """Return device and inode."""
        status = status_of(self.path(folder))
        return None if status is None else (status.st_dev, status.st_ino)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


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
