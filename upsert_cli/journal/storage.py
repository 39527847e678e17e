"""One TinyDB file of task records: read without a lock, written whole or not at all."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, cast

from tinydb import TinyDB
from tinydb.queries import QueryLike
from tinydb.storages import Storage
from tinydb.table import Document, Table

from upsert_cli.atomic import open_private, replacing, write_all
from upsert_cli.errors import JournalDamaged
from upsert_cli.journal.file_access import reading_from, writing_to

TABLE = "tasks"
SEGMENT_TASKS = 500  # tasks in a file at most
SEGMENT_BYTES = (
    300_000  # bytes from which on a file gets no further tasks; a change of a file so large takes 6 to 12 ms
)
INDEX = "index"  # a table before the tasks with all ids and states, so that a search need not parse the file
INDEX_BYTES = (16_384, 512 + SEGMENT_TASKS * 132)  # bytes that 500 ids of ours take, and 500 of the longest
FOLDS_CASE = sys.platform in ("darwin", "win32")  # where a.lease and A.lease are one file

_FIRST, _AFTER_INDEX, _LAST = b'{"index": {', b'}}, "tasks": {', b"}}}"  # as json writes it

Record = dict[str, Any]
Tables = dict[str, dict[str, Any]]


class SegmentStorage(Storage):
    """A TinyDB storage in one file, which at any moment has all of the old or all of the new content.

    The parsed content is kept until the path names another file. The old file stays open, since only that keeps the
    system from giving its inode number to the next generation.
    """

    def __init__(self, path: Path) -> None:
        """Touch nothing."""
        self._path = path
        self._descriptor: int | None = None
        self._identity: tuple[int, ...] = ()
        self._tables: Tables = {}

    def read(self) -> Tables:
        """Return all tables.

        Raises:
            JournalDamaged: The content is not that of such a database.
            FileNotFoundError: There is no file.
        """
        if not self._is_current():
            self._load()
        return self._tables

    def write(self, data: Tables) -> None:
        """Replace the file; only the holder of its lock may call this."""
        content = json.dumps({INDEX: {"1": _index_of(data)}} | data, check_circular=False).encode("ascii")
        self.close()
        try:
            with writing_to(self._path), replacing(self._path, durable=True, backup=backup_of(self._path)) as new:
                write_all(new, content)
                self._keep(os.dup(new), data)
        except BaseException:
            self.close()
            raise

    def may_hold(self, word: str, *, fold: bool = False, whole: bool = True) -> bool:
        """Look for an id or a status in the index, and parse the file if it is there, or if the file looks damaged.

        Args:
            word: The id or status; with `fold`, in lower case.
            fold: Whether to ignore case.
            whole: Whether the beginning of an id is not enough.
        """
        quoted = f'"{word}"' if whole else f'"{word}'  # no id has a character that JSON escapes
        return self._is_current() or self._load(lambda descriptor: _may_hold(descriptor, quoted.encode(), fold=fold))

    def size(self) -> int | None:
        """Return the size of the file in bytes; None if it is missing."""
        try:
            return self._path.lstat().st_size
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Drop the parsed content; TinyDB changes it in place, so after an error it may differ from the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._identity, self._tables = None, (), {}

    def __del__(self) -> None:
        self.close()

    def _is_current(self) -> bool:
        if self._descriptor is None:
            return False
        with reading_from(self._path):
            return self._identity == _identity(self._path.lstat())

    def _load(self, is_wanted: Callable[[int], bool] = lambda _: True) -> bool:
        self.close()
        with reading_from(self._path):
            descriptor = open_private(self._path, os.O_RDONLY)
            try:
                if not is_wanted(descriptor):
                    os.close(descriptor)
                    return False
                self._keep(descriptor, _parse(os.pread(descriptor, os.fstat(descriptor).st_size, 0), self._path))
            except BaseException:
                os.close(descriptor)
                raise
        return True

    def _keep(self, descriptor: int, tables: Tables) -> None:
        self._descriptor, self._identity, self._tables = descriptor, _identity(os.fstat(descriptor)), tables


class TaskFile:
    """A TinyDB file with the table `tasks`."""

    def __init__(self, path: Path) -> None:
        """Touch nothing."""
        self.path = path
        self._database = TinyDB(path, storage=SegmentStorage)

    @property
    def exists(self) -> bool:
        """Whether the file is there, even if it is damaged."""
        return self._storage.size() is not None

    @property
    def has_room(self) -> bool:
        """Whether one more task may go into this file."""
        size = self._storage.size()
        return size is None or (size < SEGMENT_BYTES and len(self._table()) < SEGMENT_TASKS)

    def find(self, task_id: str, *, thorough: bool = False) -> Record | None:
        """Return the record of a task, or None.

        Args:
            task_id: The task.
            thorough: Whether to parse the file in any case, and so to see all damage; a look into the index takes a
                hundredth of the time.
        """
        if not (thorough or self._storage.may_hold(task_id)):
            return None
        found = self._table().get(_has_id(task_id))
        return None if found is None else dict(found)

    def takes(self, task_id: str, *, thorough: bool = False) -> bool:
        """Check whether a task in this file has this id, or an id whose files would have the same names."""
        if not FOLDS_CASE:
            return self.find(task_id, thorough=thorough) is not None
        lower = task_id.lower()
        may_hold = thorough or self._storage.may_hold(lower, fold=True)
        return may_hold and self._table().contains(lambda record: str(record.get("id")).lower() == lower)

    def ids_from(self, prefix: str) -> list[str]:
        """Return the ids that begin with a prefix, the newest first."""
        if not self._storage.may_hold(prefix, whole=False):
            return []
        found = self._table().search(lambda record: str(record.get("id")).startswith(prefix))
        return [str(record["id"]) for record in sorted(found, key=lambda record: record.doc_id, reverse=True)]

    def records(self, statuses: Collection[str] = (), *, thorough: bool = False) -> list[Record]:
        """Return the records, newest first; only those of some statuses if any are given."""
        if not statuses:
            found = self._table().all()
        elif thorough or any(map(self._storage.may_hold, statuses)):
            found = self._table().search(lambda record: record.get("status") in statuses)
        else:
            found = []
        return [dict(record) for record in sorted(found, key=lambda record: record.doc_id, reverse=True)]

    def insert(self, *records: Record) -> None:
        """Add records, all or none; only the holder of the file's lock may call this."""
        if not self.exists:
            self._storage.write({TABLE: {}})
        # Numbered here, since two handles of TinyDB hand out the same next number.
        last = max((document.doc_id for document in self._table()), default=0)
        numbered = [Document(record, doc_id=number) for number, record in enumerate(records, last + 1)]
        self._change(lambda table: table.insert_multiple(numbered))

    def update(self, record: Record) -> None:
        """Change the record that has the same id; only the holder of the file's lock may call this."""
        self._change(lambda table: table.update(record, _has_id(record["id"])))

    def remove(self, *task_ids: str) -> None:
        """Remove records; only the holder of the file's lock may call this."""
        ids = frozenset(task_ids)
        self._change(lambda table: table.remove(lambda record: record.get("id") in ids))

    def problem(self) -> str | None:
        """Return the reason why the file is damaged, or None; a missing file is not damaged."""
        try:
            self._storage.read()
        except JournalDamaged as error:
            return error.reason
        except FileNotFoundError:
            return None
        return None

    def close(self) -> None:
        """Close the file that reading keeps open."""
        self._storage.close()

    @property
    def _storage(self) -> SegmentStorage:
        return cast(SegmentStorage, self._database.storage)

    def _table(self) -> Table:
        # No query cache: it would hide the writes of other processes.
        return self._database.table(TABLE, cache_size=0)

    def _change(self, change: Callable[[Table], object]) -> None:
        try:
            change(self._table())
        except BaseException:
            self._storage.close()
            raise


def backup_of(path: Path) -> Path:
    """Return the path of the previous generation of a file."""
    return path.with_name(f"{path.name}.bak")


def _has_id(task_id: str) -> QueryLike:
    # A plain function in place of TinyDB's `where`, which takes ten times as long a record.
    return lambda value: value.get("id") == task_id


def _index_of(tables: Tables) -> dict[str, list[str]]:
    records = tables[TABLE].values()
    return {
        "ids": [str(record.get("id")) for record in records],
        "statuses": sorted({str(record.get("status")) for record in records}),
    }


def _may_hold(descriptor: int, word: bytes, *, fold: bool) -> bool:
    tail = os.pread(descriptor, len(_LAST), max(os.fstat(descriptor).st_size - len(_LAST), 0))
    for size in INDEX_BYTES:
        index, found, _ = os.pread(descriptor, size, 0).partition(_AFTER_INDEX)
        if found and tail == _LAST and index.startswith(_FIRST):
            return word in (index.lower() if fold else index)
    return True  # cut off, overwritten, or not written by this tool: parsing it will tell


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _parse(raw: bytes, path: Path) -> Tables:
    if not raw.strip(b"\0"):
        raise JournalDamaged(path=str(path), reason="it holds only zeros" if raw else "it is empty")
    try:
        tables = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise JournalDamaged(path=str(path), reason=f"it is not JSON: {error}") from error
    match tables:
        case {"tasks": dict() as records} if all(
            number.isdecimal() and isinstance(record, dict) for number, record in records.items()
        ):
            return {name: table for name, table in tables.items() if name != INDEX}
    raise JournalDamaged(path=str(path), reason="it is not a table of tasks")
