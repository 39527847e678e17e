"""The data files in a folder or matched by a glob, on a disk or in an object store.

Files that their writer has not committed are not data, nor are those of a table with a log. Spark, Hive, Hadoop and
Arrow agree that names which begin with `_` or `.` are not data, except those of partitions.
"""

from __future__ import annotations

import abc
import errno
import fnmatch
import glob
import os
import shlex
import stat
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from upsert_cli.errors import Refusal, SourceUnreadable, reason_of

_DANGLING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # of links that lead nowhere, or around in a circle

_WRITE = "write its current rows as Parquet, for example with Spark or DuckDB"
_DELTA = "`python -c \"import sys, pyarrow.parquet as p; from deltalake import DeltaTable as D; " \
    "p.write_table(D(sys.argv[1]).to_pyarrow_table(), 'table.parquet')\" FOLDER`"  # fmt: skip
TABLE_LOGS = {"_delta_log": ("a Delta", _DELTA), ".hoodie": ("a Hudi", _WRITE)}
"""Folders in which a table keeps which of its files are valid: the table's kind, and how to get the valid rows."""

ICEBERG_FOLDER, ICEBERG_FILE = "metadata", "*.metadata.json"
ICEBERG = ("an Iceberg", _WRITE)

TreePath: TypeAlias = tuple[str, ...]
"""The names that lead from the root of a tree to a folder or a file; empty for the root."""


class Tree(abc.ABC):
    """Folders and files below a root, among which data files are searched for."""

    globs_match_folders: bool
    """A glob that matches a folder stands for the files in it."""

    def __init__(self) -> None:
        self.skipped: set[TreePath] = set()
        """Files and folders that are not data."""

    @abc.abstractmethod
    def name(self, path: TreePath) -> str:
        """Return a path as the user would name it, in valid Unicode."""

    @abc.abstractmethod
    def is_folder(self, path: TreePath) -> bool:
        """Tell whether there is such a folder."""

    @abc.abstractmethod
    def is_file(self, path: TreePath) -> bool:
        """Tell whether there is such a file; in an object store, a folder may have the same name."""

    @abc.abstractmethod
    def names_in(self, folder: TreePath) -> tuple[list[str], list[str]]:
        """Return the names of the folders and of the other files in a folder, each sorted."""

    def identity(self, folder: TreePath) -> Hashable | None:
        """Return a value that is equal for equal folders, or None for a link that leads nowhere."""
        return folder

    def files(self, pattern: Sequence[str] = ()) -> Iterator[tuple[TreePath, bool]]:
        """Yield the data files below the root, or those that a glob stands for, by its parts.

        Yields:
            A file, and whether the glob matches the file itself, not only its folder.

        Raises:
            Refusal: A folder belongs to a table whose log says which of its files are valid.
        """
        for path, is_matched in self._expand((), pattern or ["**"]):
            if not is_matched or self.is_file(path):
                yield path, is_matched
            elif self.globs_match_folders and self.is_folder(path):
                yield from self._expand(path, ["**"])

    def _expand(self, folder: TreePath, pattern: Sequence[str]) -> Iterator[tuple[TreePath, bool]]:
        """Yield the matches of a glob; unlike the standard library's, it ends if links lead around in a circle."""
        if not pattern:
            yield folder, True
            return
        if not self.is_folder(folder):
            return
        first, rest = pattern[0], pattern[1:]
        if first == "**" and not rest:
            for below, names in self._walk(folder):
                yield from (((*below, name), False) for name in names)
        elif first == "**":
            for below, _ in self._walk(folder):
                yield from self._expand(below, rest)
        elif glob.has_magic(first):
            folders, files = self.names_in(folder)
            for name, is_folder in sorted([*((name, True) for name in folders), *((name, False) for name in files)]):
                if fnmatch.fnmatchcase(name, first) and self._is_meant(folder, name, first, is_folder=is_folder):
                    yield from self._expand((*folder, name), rest)
        else:
            yield from self._expand((*folder, first), rest)

    def _walk(self, top: TreePath) -> Iterator[tuple[TreePath, list[str]]]:
        """Yield each data folder once, with the names of its data files."""
        seen = {self.identity(top)}
        pending = [top]
        while pending:
            folder = pending.pop()
            folders, files = self.names_in(folder)
            self._refuse_table(folder, folders)
            inner = []
            for name in self._kept(folder, folders, are_folders=True):
                identity = self.identity((*folder, name))
                if identity is not None and identity not in seen:  # a link back up would lead around for ever
                    seen.add(identity)
                    inner.append((*folder, name))
            yield folder, self._kept(folder, files, are_folders=False)
            pending += reversed(inner)

    def _kept(self, folder: TreePath, names: Iterable[str], *, are_folders: bool) -> list[str]:
        """Return those of the names in a folder that are data, and count the others as skipped."""
        kept = []
        for name in names:
            if not name.startswith(("_", ".")) or (name.startswith("_") and are_folders and "=" in name):
                kept.append(name)
            else:
                self.skipped.add((*folder, name))
        return kept

    def _is_meant(self, folder: TreePath, name: str, pattern: str, *, is_folder: bool) -> bool:
        """Tell whether a glob means a name that it matches: one that is not data only if the glob begins as it does."""
        return pattern[:1] == name[:1] or bool(self._kept(folder, [name], are_folders=is_folder))

    def _refuse_table(self, folder: TreePath, names: Sequence[str]) -> None:
        found = next((TABLE_LOGS[name] for name in names if name in TABLE_LOGS), None)
        if found is None and ICEBERG_FOLDER in names:
            _, metadata = self.names_in((*folder, ICEBERG_FOLDER))
            found = ICEBERG if fnmatch.filter(metadata, ICEBERG_FILE) else None
        if found is not None:
            name, (kind, remedy) = self.name(folder), found
            raise Refusal(
                message=f"{name} is {kind} table, whose files also hold rows that were deleted or replaced, "
                f"so nothing was written; {remedy.replace('FOLDER', shlex.quote(name))}"
            )


# -- on this machine ----------------------------------------------------------------------------------------------


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
        """Return a path as the user would name it."""
        return valid_unicode(str(self.path(path)))

    def is_folder(self, path: TreePath) -> bool:
        """Tell whether there is such a folder, or a link to one."""
        status = status_of(self.path(path))
        return status is not None and stat.S_ISDIR(status.st_mode)

    def is_file(self, path: TreePath) -> bool:
        """Tell whether there is something else than a folder."""
        status = status_of(self.path(path))
        return status is not None and not stat.S_ISDIR(status.st_mode)

    def names_in(self, folder: TreePath) -> tuple[list[str], list[str]]:
        """Return the names in a folder; raise SourceUnreadable if it may not be read."""
        folders: list[str] = []
        files: list[str] = []
        path = self.path(folder)
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    (folders if _leads_to_folder(entry) else files).append(entry.name)
        except OSError as error:
            raise inaccessible(path, error) from error
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


def status_of(path: Path, *, absent: Collection[int] = _DANGLING) -> os.stat_result | None:
    """Return the status of a file, or None if an error says that it does not exist, as for a dangling link."""
    try:
        return path.stat()
    except OSError as error:
        if error.errno in absent:
            return None
        raise inaccessible(path, error) from error


def valid_unicode(name: str) -> str:
    r"""Return a file name as text that can be encoded; bytes that are not UTF-8 become `\xff`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def inaccessible(path: Path, error: OSError) -> SourceUnreadable:
    """Return the error for a file or folder that cannot be accessed."""
    return SourceUnreadable(name=valid_unicode(str(path)), reason=reason_of(error))
