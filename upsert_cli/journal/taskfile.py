"""One TinyDB file of task records: read without a lock, written whole or not at all."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from tinydb import TinyDB
from tinydb.queries import QueryLike
from tinydb.storages import Storage
from tinydb.table import Document, Table

from upsert_cli.errors import JournalDamaged
from upsert_cli.journal.files import open_private, reading_from, replace_file, writing_to

TABLE = "tasks"
SEGMENT_TASKS = 500  # tasks; keeps a file near 500 KB and a change in the low milliseconds
SEGMENT_BYTES = 1 << 20  # bytes; a file that unusual tasks made larger gets no further ones
PIECE = 131_072  # bytes that a search looks at in one go
FOLDS_CASE = sys.platform in ("darwin", "win32")  # where a.lease and A.lease are one file

Record = dict[str, Any]
Tables = dict[str, dict[str, Any]]


class SegmentStorage(Storage):
    """Keeps a TinyDB database in one file, which is at any moment all of the old or all of the new.

    What was read is kept until the file at the path is another one. The file that it came from stays open, since only
    that keeps the system from giving its inode number to the next generation.
    """

    def __init__(self, path: Path) -> None:
        """Touches nothing."""
        self._path = path
        self._descriptor: int | None = None
        self._identity: tuple[int, ...] = ()
        self._tables: Tables = {}

    def read(self) -> Tables:
        """Returns all tables.

        Raises:
            JournalDamaged: The content is not that of such a database.
            FileNotFoundError: There is no file.
        """
        if not self._is_current():
            self._load()
        return self._tables

    def write(self, data: Tables) -> None:
        """Replaces the file; only the holder of its lock may call this."""
        content = json.dumps(data).encode("ascii")
        self.forget()
        with writing_to(self._path):
            self._keep(replace_file(self._path, content, durable=True, backup=backup_of(self._path)), data)

    def may_hold(self, needle: bytes, *, fold: bool = False) -> bool:
        """Tells whether `needle` occurs in the raw file, and parses it only then, or when it does not look whole.

        Args:
            needle: What to look for; in lower case, with `fold`.
            fold: Whether to ignore case.
        """
        return self._is_current() or self._load(
            lambda descriptor: not _looks_whole(descriptor) or _occurs(descriptor, needle, fold=fold)
        )

    def size(self) -> int | None:
        """Returns the size of the file in bytes, None if there is none."""
        try:
            return self._path.lstat().st_size
        except FileNotFoundError:
            return None

    def forget(self) -> None:
        """Drops what was read; TinyDB changes it in place, so after an error it may not be what the file holds."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._identity, self._tables = None, (), {}

    def close(self) -> None:
        """Drops what was read."""
        self.forget()

    def __del__(self) -> None:
        self.forget()

    def _is_current(self) -> bool:
        if self._descriptor is None:
            return False
        with reading_from(self._path):
            return self._identity == _identity(self._path.lstat())

    def _load(self, is_wanted: Callable[[int], bool] = lambda _: True) -> bool:
        self.forget()
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
    """A TinyDB file with the one table `tasks`."""

    def __init__(self, path: Path) -> None:
        """Touches nothing."""
        self.path = path
        self._database = TinyDB(path, storage=SegmentStorage)

    @property
    def exists(self) -> bool:
        """Tells whether the file is there, whatever it holds."""
        return self._storage.size() is not None

    @property
    def has_room(self) -> bool:
        """Tells whether one more task may go into this file."""
        size = self._storage.size()
        return size is None or (size < SEGMENT_BYTES and len(self._table()) < SEGMENT_TASKS)

    def find(self, task_id: str, *, thorough: bool = False) -> Record | None:
        """Returns the record of a task, or None.

        Args:
            task_id: The task.
            thorough: Whether to parse the file in any case. A search of the raw bytes takes a 25th of the time, but
                sees no damage; ids have no characters that JSON escapes.
        """
        if not (thorough or self._storage.may_hold(b'"id": "%b"' % task_id.encode())):
            return None
        found = self._table().get(_has_id(task_id))
        return None if found is None else dict(found)

    def takes(self, task_id: str, *, thorough: bool = False) -> bool:
        """Tells whether a task in here has this id, or one whose files would have the same names."""
        if not FOLDS_CASE:
            return self.find(task_id, thorough=thorough) is not None
        lower = task_id.lower()
        may_hold = thorough or self._storage.may_hold(b'"id": "%b"' % lower.encode(), fold=True)
        return may_hold and self._table().contains(lambda record: str(record.get("id")).lower() == lower)

    def records(self, status: str | None = None, *, thorough: bool = False) -> list[Record]:
        """Returns the records, newest first; of one status, if that is given."""
        if status is None:
            found = self._table().all()
        elif thorough or self._storage.may_hold(b'"status": "%b"' % status.encode()):
            found = self._table().search(lambda record: record.get("status") == status)
        else:
            found = []
        return [dict(record) for record in sorted(found, key=lambda record: record.doc_id, reverse=True)]

    def insert(self, record: Record) -> None:
        """Adds a record; only the holder of the file's lock may call this."""
        if not self.exists:
            self._storage.write({TABLE: {}})
        # The number is our own, since two handles of TinyDB hand out the same next one.
        last = max((document.doc_id for document in self._table()), default=0)
        self._change(lambda table: table.insert(Document(record, doc_id=last + 1)))

    def update(self, record: Record) -> None:
        """Changes the record that has the same id; only the holder of the file's lock may call this."""
        self._change(lambda table: table.update(record, _has_id(record["id"])))

    def problem(self) -> str | None:
        """Returns what is wrong with the content, or None; a file that is missing is not wrong."""
        try:
            self._storage.read()
        except JournalDamaged as error:
            return error.reason
        except FileNotFoundError:
            return None
        return None

    def close(self) -> None:
        """Closes the file that reading keeps open."""
        self._storage.close()

    @property
    def _storage(self) -> SegmentStorage:
        return cast(SegmentStorage, self._database.storage)

    def _table(self) -> Table:
        # No query cache: it would hide what other processes wrote.
        return self._database.table(TABLE, cache_size=0)

    def _change(self, change: Callable[[Table], object]) -> None:
        try:
            change(self._table())
        except BaseException:
            self._storage.forget()
            raise


def backup_of(path: Path) -> Path:
    """Returns where the generation before `path` is kept."""
    return path.with_name(f"{path.name}.bak")


def _has_id(task_id: str) -> QueryLike:
    # A plain function in place of TinyDB's `where`, which takes ten times as long a record.
    return lambda value: value.get("id") == task_id


def _looks_whole(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, 1, 0) == b"{" and os.pread(descriptor, 3, max(size - 3, 0)) == b"}}}"


def _occurs(descriptor: int, needle: bytes, *, fold: bool) -> bool:
    # In pieces that stay in the processor's cache, which takes two thirds of the time.
    for start in range(0, os.fstat(descriptor).st_size, PIECE - len(needle)):
        piece = os.pread(descriptor, PIECE, start)
        if needle in (piece.lower() if fold else piece):
            return True
    return False


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _parse(raw: bytes, path: Path) -> Tables:
    if not raw.strip(b"\0"):
        raise JournalDamaged(path=str(path), reason="it holds nothing but zeros" if raw else "it is empty")
    try:
        tables = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise JournalDamaged(path=str(path), reason=f"it is no JSON: {error}") from error
    match tables:
        case {"tasks": dict() as records} if all(
            number.isdecimal() and isinstance(record, dict) for number, record in records.items()
        ):
            return cast(Tables, tables)
    raise JournalDamaged(path=str(path), reason="it is no table of tasks")
