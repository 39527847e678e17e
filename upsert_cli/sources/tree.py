"""The search for data files below a folder or by a glob, on a disk or in an object store.

Files that their writer has not committed are not data, nor are the files of a table with a log. Spark, Hive, Hadoop and
Arrow agree that names which begin with `_` or `.` are not data, except the names of partitions.
"""

from __future__ import annotations

import abc
import fnmatch
import glob
import shlex
from collections.abc import Hashable, Iterator, Sequence
from typing import TypeAlias

from upsert_cli.errors import Refusal
from upsert_cli.sources.remote import FilePath

_WRITE = "write its current rows as Parquet, for example with Spark or DuckDB"
_DELTA = "`python -c \"import sys, pyarrow.parquet as p; from deltalake import DeltaTable as D; " \
    "p.write_table(D(sys.argv[1]).to_pyarrow_table(), 'table.parquet')\" FOLDER`"  # fmt: skip
TABLE_LOGS = {"_delta_log": ("a Delta", _DELTA), ".hoodie": ("a Hudi", _WRITE)}
"""The kind of a table and the way to its valid rows, by the folder of the log that lists the table's valid files."""

ICEBERG_FOLDER, ICEBERG_FILE = "metadata", "*.metadata.json"
ICEBERG = ("an Iceberg", _WRITE)

TreePath: TypeAlias = tuple[str, ...]
"""The names that lead from the root of a tree to a folder or a file; empty for the root."""


class Tree(abc.ABC):
    """The folders and files below a root, and the pattern of a glob by which they are searched."""

    globs_match_folders: bool
    """A glob that matches a folder stands for the files in it."""

    def __init__(self, name: str, pattern: Sequence[str] = ()) -> None:
        """Take the name of the folder or the glob in valid Unicode, and the parts of the glob after the root."""
        self.name = name
        self._pattern = pattern or ["**"]
        self.skipped: set[TreePath] = set()
        """Files and folders that are not data."""

    @abc.abstractmethod
    def name_of(self, path: TreePath) -> str:
        """Return the name that the user would give a path, in valid Unicode."""

    @abc.abstractmethod
    def file_at(self, path: TreePath) -> FilePath | None:
        """Return a file to read, or None if it is not a regular file."""

    @abc.abstractmethod
    def is_folder(self, path: TreePath) -> bool:
        """Check whether a path leads to a folder."""

    @abc.abstractmethod
    def is_file(self, path: TreePath) -> bool:
        """Check whether a path leads to a file; in an object store, a folder may have the same name."""

    @abc.abstractmethod
    def names_in(self, folder: TreePath) -> tuple[list[str], list[str]]:
        """Return the names of the folders and of the other files in a folder, each sorted."""

    def identity(self, folder: TreePath) -> Hashable | None:
        """Return a value that is equal for equal folders, or None for a link that leads nowhere."""
        return folder

    def files(self) -> Iterator[tuple[TreePath, bool]]:
        """Yield the data files below the root, or the data files of the glob.

        Yields:
            A file, and whether the glob matches the file itself, not only its folder.

        Raises:
            Refusal: A folder belongs to a table with a log of its valid files.
        """
        for path, is_matched in self._expand((), self._pattern):
            if not is_matched or self.is_file(path):
                yield path, is_matched
            elif self.globs_match_folders and self.is_folder(path):
                yield from self._expand(path, ["**"])

    def _expand(self, folder: TreePath, pattern: Sequence[str]) -> Iterator[tuple[TreePath, bool]]:
        """Yield the matches of a glob; unlike the standard library's, this ends at links that lead in a circle."""
        if not pattern:
            yield folder, True
            return
        if not self.is_folder(folder):
            return
        first, rest = pattern[0], pattern[1:]
        if first == "**" and not rest:
            for below, names in self._walk(folder):
                yield from (((*below, name), False) for name in names)
        else:
            for path in self._matches(folder, first):
                yield from self._expand(path, rest)

    def _matches(self, folder: TreePath, part: str) -> Iterator[TreePath]:
        """Yield the paths in a folder that match a part of a glob; for `**`, the folder and all data folders below."""
        if part == "**":
            yield from (below for below, _ in self._walk(folder))
        elif not glob.has_magic(part):
            yield (*folder, part)
        else:
            folders, files = self.names_in(folder)
            for name, is_folder in sorted([*((name, True) for name in folders), *((name, False) for name in files)]):
                if fnmatch.fnmatchcase(name, part) and self._is_meant(folder, name, part, is_folder=is_folder):
                    yield (*folder, name)

    def _walk(self, top: TreePath) -> Iterator[tuple[TreePath, list[str]]]:
        """Yield each data folder once, with the names of its data files."""
        seen = {self.identity(top)}
        pending = [top]
        while pending:
            folder = pending.pop()
            folders, files = self.names_in(folder)
            self._refuse_table(folder, folders)
            inner = []
            for name in self._data_names(folder, folders, are_folders=True):
                identity = self.identity((*folder, name))
                if identity is not None and identity not in seen:  # a link back up would lead around for ever
                    seen.add(identity)
                    inner.append((*folder, name))
            yield folder, self._data_names(folder, files, are_folders=False)
            pending += reversed(inner)

    def _data_names(self, folder: TreePath, names: Sequence[str], *, are_folders: bool) -> list[str]:
        """Return the names in a folder that are data, and add the others to those that were skipped."""
        kept = []
        for name in names:
            if not name.startswith(("_", ".")) or (name.startswith("_") and are_folders and is_partition(name)):
                kept.append(name)
            else:
                self.skipped.add((*folder, name))
        return kept

    def _is_meant(self, folder: TreePath, name: str, pattern: str, *, is_folder: bool) -> bool:
        """Check whether a glob means a name that it matches: `_*` means names that are not data, and `*` does not."""
        return pattern[:1] == name[:1] or bool(self._data_names(folder, [name], are_folders=is_folder))

    def _refuse_table(self, folder: TreePath, names: Sequence[str]) -> None:
        """Raise Refusal if the folders in a folder show that it belongs to a table with a log."""
        table = next((TABLE_LOGS[name] for name in names if name in TABLE_LOGS), None)
        if table is None and ICEBERG_FOLDER in names:
            _, metadata = self.names_in((*folder, ICEBERG_FOLDER))
            table = ICEBERG if fnmatch.filter(metadata, ICEBERG_FILE) else None
        if table is not None:
            name, (kind, remedy) = self.name_of(folder), table
            raise Refusal(
                message=f"{name} is {kind} table, whose files also hold rows that were deleted or replaced, "
                f"so nothing was written; {remedy.replace('FOLDER', shlex.quote(name))}"
            )


def is_partition(folder: str) -> bool:
    """Check whether a folder is a partition, such as `_key=value`."""
    return "=" in folder


def divided_at_glob(parts: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the parts of a name before the first one that is a pattern, and the others."""
    fixed = next((index for index, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return parts[:fixed], parts[fixed:]
