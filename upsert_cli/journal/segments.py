"""The segments of a journal: files of up to 500 tasks, each with a lock and its previous generation.

The cost of a change grows with a TinyDB table, from 3 ms at 100 tasks to 3 seconds at 100,000, so a journal has many.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinydb.storages import Storage
from tinydb.table import Table

from upsert_cli.atomic import keep_backup, move_aside, open_private, read_whole, replacing, sync, write_all
from upsert_cli.errors import JournalDamaged
from upsert_cli.journal.files import locked, reading_from, writing_to

if TYPE_CHECKING:
    from tinydb.queries import QueryLike

TABLE = "tasks"
SEGMENT_TASKS = 500  # tasks in a file at most
SEGMENT_BYTES = 300_000  # bytes from which a file gets no further tasks; a change of such a file takes 6 to 12 ms
INDEX = "index"  # a table before the tasks with all ids and states, so that a search need not parse the file
INDEX_BYTES = 512 + SEGMENT_TASKS * 132  # bytes that 500 of the longest ids take
RETRY_PAUSE = 0.01  # seconds after which a reader looks again at a file that it could not make sense of

_FIRST, _AFTER_INDEX, _LAST = b'{"index": {', b'}}, "tasks": {', b"}}}"  # as json writes it

Record = dict[str, Any]
Tables = dict[str, dict[str, Any]]


class Segment(Storage):
    """The tasks of one file, as the storage of a TinyDB, with its lock and its previous generation.

    At any moment the file has all of the old or all of the new content, so reading takes no lock. The parsed content is
    kept until the path names another file. The old file stays open, since only that keeps the system from giving its
    inode number to the next generation. A missing file holds no task. Every method that reads raises `JournalDamaged`
    if neither generation makes sense.
    """

    def __init__(self, folder: Path, number: int, *, warn: Callable[[str], None]) -> None:
        """Touch nothing; `warn` is called with each damage that is found, and how it is handled."""
        name = f"tasks-{number:06}"
        self._path, self._backup = folder / f"{name}.json", folder / f"{name}.json.bak"
        self._lock = folder / "locks" / f"{name}.lock"
        self._warn = warn
        self._descriptor: int | None = None
        self._identity: tuple[int, ...] = ()
        self._tables: Tables = {}

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether one more task may go into this segment."""
        with suppress(FileNotFoundError):
            return self._path.lstat().st_size < SEGMENT_BYTES and len(self._table) < SEGMENT_TASKS
        return True

    def find(self, task_id: str, *, thorough: bool = False) -> Record | None:
        """Return the record of a task, or None; with `thorough`, parse the file in any case, and so see all damage."""
        return next(iter(self.search(_has_id(task_id), task_id, thorough=thorough)), None)

    def records(self, statuses: Collection[str] = (), *, thorough: bool = False) -> list[Record]:
        """Return the records, newest first; only those of some statuses if any are given."""
        if not statuses:
            return self.search(lambda _: True, thorough=True)
        return self.search(lambda record: record.get("status") in statuses, *statuses, thorough=thorough)

    def search(self, is_wanted: QueryLike, *words: str, whole: bool = True, thorough: bool = False) -> list[Record]:
        """Return the wanted records, newest first; each has one of the words as its id or status.

        A word may be in another case and, unless `whole`, the beginning of an id. With `thorough`, the file is parsed
        even if its index has none of the words.
        """
        end = '"' if whole else ""
        if not (thorough or any(self._may_hold(f'"{word}{end}') for word in words)):
            return []
        return [dict(record) for record in reversed(self._table.search(is_wanted))]

    def problems(self) -> Iterator[tuple[Path, str]]:
        """Yield each damaged file, with the reason why it is damaged."""
        for path in (self._path, self._backup):
            if (problem := self._problem(path)) is not None:
                yield path, problem

    # -- changing; only the holder of the lock may call `insert`, `update`, `remove` and `delete` -------------------

    @contextmanager
    def writing(self) -> Iterator[Segment]:
        """Hold the lock, and restore the file first if it is damaged or lost."""
        with locked(self._lock):
            with writing_to(self._path):
                self._restore()
            try:
                yield self
            except BaseException:
                self.close()  # TinyDB changes the parsed content in place, so it may differ from the file
                raise

    def insert(self, *records: Record) -> None:
        """Add records, all or none."""
        self._table.insert_multiple(records)

    def update(self, record: Record) -> None:
        """Change the record that has the same id."""
        self._table.update(record, _has_id(record["id"]))

    def remove(self, *task_ids: str) -> None:
        """Remove records."""
        ids = frozenset(task_ids)
        self._table.remove(lambda record: record.get("id") in ids)

    def delete(self) -> None:
        """Remove both files."""
        self.close()
        with writing_to(self._path):
            # In this order: a previous generation without the file would be restored.
            self._backup.unlink(missing_ok=True)
            self._path.unlink()
            sync(self._path.parent)

    def restore(self) -> None:
        """Move damaged files aside, the previous generation too, and restore the segment from a good one."""
        with self.writing(), writing_to(self._path):
            self._move_damaged(self._backup)

    def _restore(self) -> None:
        is_damaged = self._move_damaged(self._path)
        if self._path.exists() or not (is_damaged or self._backup.exists()):
            return
        if not self._move_damaged(self._backup) and self._backup.exists():
            keep_backup(self._backup, self._path)
            self._warn(f"{self._path} was restored from its previous generation; its last change may be lost")
        sync(self._path.parent)

    def _move_damaged(self, path: Path) -> bool:
        if (problem := self._problem(path)) is None:
            return False
        self._warn(f"{path} is damaged ({problem}); it was moved to {move_aside(path).name}")
        return True

    def _problem(self, path: Path) -> str | None:
        """Return the reason why one of the two files is damaged, or None; a missing file is not damaged."""
        read = self._read_file if path == self._path else partial(_read_tables, path)
        try:
            with suppress(FileNotFoundError):
                read()
        except JournalDamaged as error:
            return error.reason
        return None

    # -- the file -------------------------------------------------------------------------------------------------

    def read(self) -> Tables:
        """Return the tables of the file, if need be a moment later, or those of its previous generation."""
        problem: JournalDamaged | None = None
        for pause in (RETRY_PAUSE, 0.0):
            try:
                return self._read_file()
            except FileNotFoundError:
                continue
            except JournalDamaged as error:
                problem = error
                time.sleep(pause)
        try:
            tables = _read_tables(self._backup)
        except FileNotFoundError:
            if problem is not None:
                raise problem from None
            return {TABLE: {}}
        except JournalDamaged as error:
            raise problem or error from None
        state = f"damaged ({problem.reason})" if problem else "missing"
        self._warn(f"{self._path} is {state}; reading its previous generation")
        return tables

    def write(self, data: Tables) -> None:
        """Replace the file; only the holder of its lock may call this."""
        records = data[TABLE].values()
        index = {
            "ids": [str(record.get("id")) for record in records],
            "statuses": sorted({str(record.get("status")) for record in records}),
        }
        content = json.dumps({INDEX: {"1": index}} | data, check_circular=False).encode("ascii")
        self.close()
        with writing_to(self._path), replacing(self._path, durable=True, backup=self._backup) as new:
            write_all(new, content)
            self._keep(os.dup(new), data)

    def close(self) -> None:
        """Close the file that reading keeps open, and drop the parsed content."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._identity, self._tables = None, (), {}

    def __del__(self) -> None:
        self.close()

    @property
    def _table(self) -> Table:
        return Table(self, TABLE, cache_size=0)  # without a memory, which would hide the writes of other processes

    def _may_hold(self, text: str) -> bool:
        """Check whether an id or a status may be this JSON, or begin with it, in any case.

        A look into the index is a hundred times faster than parsing the file.
        """
        with suppress(FileNotFoundError, JournalDamaged):  # reading tells
            return self._is_current() or self._load(text.lower())  # no id and no status is escaped in JSON
        return True

    def _is_current(self) -> bool:
        with reading_from(self._path):
            return self._descriptor is not None and self._identity == _identity(self._path.lstat())

    def _read_file(self) -> Tables:
        if not self._is_current():
            self._load()
        return self._tables

    def _load(self, text: str | None = None) -> bool:
        """Parse the file, unless its index shows that it does not hold a text."""
        self.close()
        with reading_from(self._path), ExitStack() as unless_kept:
            descriptor = open_private(self._path, os.O_RDONLY)
            unless_kept.callback(os.close, descriptor)
            if text is not None and not _index_may_hold(descriptor, text.encode()):
                return False
            raw = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            self._keep(descriptor, _tables_in(raw, self._path))
            unless_kept.pop_all()
        return True

    def _keep(self, descriptor: int, tables: Tables) -> None:
        self._descriptor, self._identity, self._tables = descriptor, _identity(os.fstat(descriptor)), tables


def _has_id(task_id: str) -> QueryLike:
    # A plain function in place of TinyDB's `where`, which takes ten times as long a record.
    return lambda value: value.get("id") == task_id


def _index_may_hold(descriptor: int, text: bytes) -> bool:
    index, found, _ = os.pread(descriptor, INDEX_BYTES, 0).partition(_AFTER_INDEX)
    tail = os.pread(descriptor, len(_LAST), max(os.fstat(descriptor).st_size - len(_LAST), 0))
    if found and tail == _LAST and index.startswith(_FIRST):
        return text in index.lower()
    return True  # cut off, overwritten, or not written by this tool: parsing it will tell


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _read_tables(path: Path) -> Tables:
    with reading_from(path):
        return _tables_in(read_whole(path), path)


def _tables_in(raw: bytes, path: Path) -> Tables:
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
