"""The segments of a journal: files of up to 500 tasks, each with a lock and its previous generation.

The cost of a change grows with a TinyDB table, from 3 ms at 100 tasks to 3 seconds at 100,000, so a journal has many.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
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
RETRY_PAUSE = 0.01  # seconds after which a reader reads a file again that seemed damaged

_FIRST, _AFTER_INDEX, _LAST = b'{"index": {', b'}}, "tasks": {', b"}}}"  # as json writes it

Record = dict[str, Any]
Tables = dict[str, dict[str, Any]]


class Segment(Storage):
    """The tasks of one file, as the storage of a TinyDB table, with its lock and its previous generation.

    At any moment the file has all of the old or all of the new content, so reading takes no lock. The parsed content is
    kept until the path names another file. The file stays open, or the system could give its inode number to the next
    generation. A missing file holds no tasks. Every method that reads raises `JournalDamaged` if both generations
    are damaged.
    """

    def __init__(self, folder: Path, number: int, *, warn: Callable[[str], None]) -> None:
        """Open nothing yet; `warn` is called with each damage that is found, and how it was handled."""
        name = f"tasks-{number:06}"
        self._path, self._backup = folder / f"{name}.json", folder / f"{name}.json.bak"
        self._lock = folder / "locks" / f"{name}.lock"
        self._warn = warn
        self._descriptor: int | None = None
        self._identity: tuple[int, ...] = ()
        self._tables: Tables | None = None  # once they are parsed

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether another task fits into this segment."""
        with suppress(FileNotFoundError):
            return self._path.lstat().st_size < SEGMENT_BYTES and len(self._table) < SEGMENT_TASKS
        return True

    def find(self, task_id: str, *, thorough: bool = False) -> Record | None:
        """Return the record of a task, or None; see `search` about `thorough`."""
        return next(iter(self.search(_has_id(task_id), task_id, thorough=thorough)), None)

    def records(self, statuses: Collection[str] = (), *, thorough: bool = False) -> list[Record]:
        """Return the records with one of the statuses, or all records without any; the newest first."""
        if not statuses:
            return self.search(lambda _: True, thorough=True)
        return self.search(lambda record: record.get("status") in statuses, *statuses, thorough=thorough)

    def search(self, is_wanted: QueryLike, *words: str, whole: bool = True, thorough: bool = False) -> list[Record]:
        """Return the wanted records, the newest first; each of them has one of the words as its id or status.

        The case of a word is ignored and, unless `whole`, it may be the beginning of an id. A `thorough` search parses
        the file even if its index has none of the words, and so finds all damage.
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
            # The backup first: without the file, it would be restored.
            self._backup.unlink(missing_ok=True)
            self._path.unlink()
            sync(self._path.parent)

    def restore(self) -> None:
        """Move both files aside if they are damaged, and restore the segment from an intact one."""
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
        read = self._read_file if path == self._path else lambda: _read_tables(path)
        try:
            with suppress(FileNotFoundError):
                read()
        except JournalDamaged as error:
            return error.reason
        return None

    # -- the file -------------------------------------------------------------------------------------------------

    def read(self) -> Tables:
        """Return the tables of the file or, if two attempts to read it fail, those of its previous generation."""
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
        """Replace the file, and keep its previous generation; only the holder of the lock may call this."""
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
        self._descriptor, self._identity, self._tables = None, (), None

    def __del__(self) -> None:
        self.close()

    @property
    def _table(self) -> Table:
        return Table(self, TABLE, cache_size=0)  # a cache would hide the writes of other processes

    def _may_hold(self, text: str) -> bool:
        """Check whether an id or a status may be this JSON, or begin with it, in any case.

        Reading the index of the file is a hundred times faster than parsing the file.
        """
        with suppress(FileNotFoundError), reading_from(self._path):
            descriptor = self._open()
            # JSON escapes no id and no status; the parsed content is searched as fast as the index.
            return self._tables is not None or _index_may_hold(descriptor, text.lower().encode())
        return True  # the previous generation may hold it

    def _read_file(self) -> Tables:
        """Return the tables of the file; parse it only if it was replaced since it was parsed last."""
        with reading_from(self._path):
            descriptor = self._open()
            if self._tables is None:
                raw = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
                self._tables = _tables_in(raw, self._path)
        return self._tables

    def _open(self) -> int:
        """Return a descriptor of the file, a new one if the file was replaced."""
        if self._descriptor is not None and self._identity == _identity(self._path.lstat()):
            return self._descriptor
        self.close()
        descriptor = open_private(self._path, os.O_RDONLY)
        self._keep(descriptor, None)
        return descriptor

    def _keep(self, descriptor: int, tables: Tables | None) -> None:
        self._descriptor, self._identity, self._tables = descriptor, _identity(os.fstat(descriptor)), tables


def _has_id(task_id: str) -> QueryLike:
    # A plain function, since TinyDB's `where` takes ten times as long for each record.
    return lambda value: value.get("id") == task_id


def _index_may_hold(descriptor: int, text: bytes) -> bool:
    """Check whether the index of an open file holds a text in lower case; True if there is no whole index."""
    index, found, _ = os.pread(descriptor, INDEX_BYTES, 0).partition(_AFTER_INDEX)
    tail = os.pread(descriptor, len(_LAST), max(os.fstat(descriptor).st_size - len(_LAST), 0))
    if found and tail == _LAST and index.startswith(_FIRST):
        return text in index.lower()
    return True  # the file is cut off, overwritten, or not written by this tool, which parsing shows


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
