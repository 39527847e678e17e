"""What of a folder is data: not what its writer has not committed, and not the files of a table that has a log.

Spark, Hive, Hadoop and Arrow agree that names which begin with `_` or `.` are no data, except those of partitions.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from upsert_cli.errors import TableFolder

SHOWN_PARTITIONS = 3  # folders in a message

_DELTA = "`python -c \"import sys, pyarrow.parquet as p; from deltalake import DeltaTable as D; " \
    "p.write_table(D(sys.argv[1]).to_pyarrow_table(), 'table.parquet')\" FOLDER`"  # fmt: skip
_WRITE = "write its present rows as Parquet, by Spark or DuckDB for example"
TABLE_LOGS = {"_delta_log": ("Delta", _DELTA), ".hoodie": ("Hudi", _WRITE)}
"""Folders in which a table keeps what of its files is valid: whose they are, and how to get the valid rows."""

ICEBERG_FOLDER, ICEBERG_FILE = "metadata", "*.metadata.json"
ICEBERG = ("Iceberg", _WRITE)


def is_data(name: str, *, is_folder: bool) -> bool:
    """Tell whether a file or folder of that name, which the user did not name, is data."""
    return not name.startswith(("_", ".")) or (name.startswith("_") and is_folder and "=" in name)


def is_named(name: str, pattern: str) -> bool:
    """Tell whether a glob names what it would otherwise pass over: `_*` does, `*` does not."""
    return pattern[:1] == name[:1] and fnmatch.fnmatchcase(name, pattern)


def refuse_table(folder: str, names: Iterable[str], *, metadata: Iterable[str] = ()) -> None:
    """Check that a folder is not a table whose log says which of its files are valid.

    Args:
        folder: As the user would name it.
        names: Of the folders in it.
        metadata: Names of the files in its folder `metadata`, if it has one.

    Raises:
        TableFolder: It is.
    """
    found = next((TABLE_LOGS[name] for name in names if name in TABLE_LOGS), None)
    if found is None and fnmatch.filter(metadata, ICEBERG_FILE):
        found = ICEBERG
    if found is not None:
        raise TableFolder(name=folder, kind=found[0], remedy=found[1])


class Listing:
    """What was passed over while the files of one name were looked for."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._skipped: set[PurePath] = set()
        self._partitions: dict[str, None] = {}

    @property
    def skipped(self) -> int:
        """How many files and folders are no data."""
        return len(self._skipped)

    def kept(self, folder: PurePath, names: Iterable[str], *, are_folders: bool) -> list[str]:
        """Return those of the names in a folder that are data, and take note of the others."""
        kept = [name for name in names if is_data(name, is_folder=are_folders)]
        self._skipped.update(folder / name for name in names if name not in kept)
        return kept

    def skip(self, path: PurePath) -> None:
        """Take note of a file that is no data."""
        self._skipped.add(path)

    def add_partitions(self, folder: PurePath) -> None:
        """Take note of the values in the names of the folders that a file was found in."""
        for part in folder.parts:
            if part.strip("_").partition("=")[1] and part not in self._partitions:
                self._partitions[part] = None

    def notes(self, name: str) -> Iterator[str]:
        """Yield what to tell the user about what a name stands for, each in one line."""
        if self.skipped:
            what = "file or folder whose name begins" if self.skipped == 1 else "files or folders whose names begin"
            yield f"{name}: skipped {self.skipped:,} {what} with `_` or `.`"
        if self._partitions:
            shown = ", ".join(f"`{part}`" for part in list(self._partitions)[:SHOWN_PARTITIONS])
            more = ", ..." if len(self._partitions) > SHOWN_PARTITIONS else ""
            yield f"{name}: the values in names of folders, such as {shown}{more}, are not stored"
