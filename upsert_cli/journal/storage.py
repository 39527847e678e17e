"""A TinyDB storage for one file of tasks: read without a lock, written whole or not at all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinydb.storages import Storage
from tinydb.table import Table

from upsert_cli.atomic import open_private, read_whole, replacing, write_all
from upsert_cli.errors import JournalDamaged
from upsert_cli.journal.files import reading_from, writing_to

TABLE = "tasks"
SEGMENT_TASKS = 500  # tasks in a file at most
INDEX = "index"  # a table before the tasks with all ids and states, so that a search need not parse the file
INDEX_BYTES = (16_384, 512 + SEGMENT_TASKS * 132)  # bytes that 500 ids of ours take, and 500 of the longest
RETRY_PAUSE = 0.01  # seconds after which a reader looks again at a file that it could not make sense of

_FIRST, _AFTER_INDEX, _LAST = b'{"index": {', b'}}, "tasks": {', b"}}}"  # as json writes it

Record = dict[str, Any]
Tables = dict[str, dict[str, Any]]


class SegmentStorage(Storage):
    """A TinyDB storage in one file, which at any moment has all of the old or all of the new content.

    The parsed content is kept until the path names another file. The old file stays open, since only that keeps the
    system from giving its inode number to the next generation.
    """

    def __init__(self, path: Path, *, warn: Callable[[str], None]) -> None:
        """Touch nothing; `warn` is called when the previous generation is read in place of the file."""
        self._path = path
        self._warn = warn
        self._descriptor: int | None = None
        self._identity: tuple[int, ...] = ()
        self._tables: Tables = {}

    def read(self) -> Tables:
        """Return the tables of the file, if need be a moment later, or those of its previous generation.

        Raises:
            JournalDamaged: Neither file makes sense.
        """
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
            tables = read_tables(backup_of(self._path))
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
        content = json.dumps({INDEX: {"1": _index_of(data)}} | data, check_circular=False).encode("ascii")
        self.close()
        with writing_to(self._path), replacing(self._path, durable=True, backup=backup_of(self._path)) as new:
            write_all(new, content)
            self._keep(os.dup(new), data)

    def may_hold(self, word: str, *, fold: bool = False, whole: bool = True) -> bool:
        """Check whether the tables may hold an id or a status; a look into the index is a hundred times faster.

        With `fold`, the word is in lower case and case is ignored; unless `whole`, the beginning of an id is enough.
        """
        quoted = f'"{word}"' if whole else f'"{word}'  # no id has a character that JSON escapes
        try:
            return self._is_current() or self._load(lambda file: _index_may_hold(file, quoted.encode(), fold=fold))
        except (FileNotFoundError, JournalDamaged):
            return True  # reading tells

    def table(self) -> Table:
        """Return the table of tasks without any memory, which would hide the writes of other processes."""
        return Table(self, TABLE, cache_size=0)

    def problem(self) -> str | None:
        """Return the reason why the file is damaged, or None; a missing file is not damaged."""
        return problem_of(self._read_file)

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

    def _read_file(self) -> Tables:
        if not self._is_current():
            self._load(lambda _: True)
        return self._tables

    def _load(self, is_wanted: Callable[[int], bool]) -> bool:
        self.close()
        with reading_from(self._path):
            descriptor = open_private(self._path, os.O_RDONLY)
            try:
                if not is_wanted(descriptor):
                    os.close(descriptor)
                    return False
                raw = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
                self._keep(descriptor, _tables_in(raw, self._path))
            except BaseException:
                os.close(descriptor)
                raise
        return True

    def _keep(self, descriptor: int, tables: Tables) -> None:
        self._descriptor, self._identity, self._tables = descriptor, _identity(os.fstat(descriptor)), tables


def backup_of(path: Path) -> Path:
    """Return the path of the previous generation of a file."""
    return path.with_name(f"{path.name}.bak")


def _index_of(tables: Tables) -> dict[str, list[str]]:
    records = tables[TABLE].values()
    return {
        "ids": [str(record.get("id")) for record in records],
        "statuses": sorted({str(record.get("status")) for record in records}),
    }


def _index_may_hold(descriptor: int, word: bytes, *, fold: bool) -> bool:
    tail = os.pread(descriptor, len(_LAST), max(os.fstat(descriptor).st_size - len(_LAST), 0))
    for size in INDEX_BYTES:
        index, found, _ = os.pread(descriptor, size, 0).partition(_AFTER_INDEX)
        if found and tail == _LAST and index.startswith(_FIRST):
            return word in (index.lower() if fold else index)
    return True  # cut off, overwritten, or not written by this tool: parsing it will tell


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def problem_of(read: Callable[[], object]) -> str | None:
    """Return the reason why the file that `read` reads is damaged, or None; a missing file is not damaged."""
    try:
        read()
    except FileNotFoundError:
        return None
    except JournalDamaged as error:
        return error.reason
    return None


def read_tables(path: Path) -> Tables:
    """Return the tables in a file.

    Raises:
        JournalDamaged: The content is not that of such a database.
        FileNotFoundError: There is no file.
    """
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
