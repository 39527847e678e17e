"""The segments of a journal: files of up to 500 tasks, each with a lock and its previous generation.

The cost of a change grows with a TinyDB table, from 3 ms at 100 tasks to 3 seconds at 100,000, so a journal has many.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from upsert_cli.atomic import keep_backup, move_aside, sync
from upsert_cli.journal.files import locked, reading_from, writing_to
from upsert_cli.journal.storage import SEGMENT_TASKS, Record, SegmentStorage, backup_of, problem_of, read_tables

if TYPE_CHECKING:
    from tinydb.queries import QueryLike

SEGMENT_BYTES = 300_000  # bytes from which a file gets no further tasks; a change of such a file takes 6 to 12 ms
FOLDS_CASE = sys.platform in ("darwin", "win32")  # where a.lease and A.lease are one file

_NAME = re.compile(r"tasks-(\d{6,})\.json(\..+)?")
_READABLE = ("", ".bak")


class Segment:
    """The tasks of one file, with its lock and its previous generation; missing files hold no task.

    Reading takes no lock. Every method that reads raises `JournalDamaged` if neither generation makes sense.
    """

    def __init__(self, folder: Path, number: int, *, warn: Callable[[str], None]) -> None:
        """Touch nothing; `warn` is called with each damage that is found, and how it is handled."""
        self._path = folder / f"tasks-{number:06}.json"
        self._lock = folder / "locks" / f"{self._path.stem}.lock"
        self._warn = warn
        self._storage = SegmentStorage(self._path, warn=warn)

    # -- reading --------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether one more task may go into this segment."""
        try:
            is_small = self._path.lstat().st_size < SEGMENT_BYTES
        except FileNotFoundError:
            return True
        return is_small and len(self._storage.table()) < SEGMENT_TASKS

    def find(self, task_id: str, *, thorough: bool = False) -> Record | None:
        """Return the record of a task, or None; with `thorough`, parse the file in any case, and so see all damage."""
        if not (thorough or self._storage.may_hold(task_id)):
            return None
        found = self._storage.table().get(_has_id(task_id))
        return None if found is None else dict(found)

    def takes(self, task_id: str, *, thorough: bool = False) -> bool:
        """Check whether a task has this id, or an id whose files would have the same names."""
        if not FOLDS_CASE:
            return self.find(task_id, thorough=thorough) is not None
        lower = task_id.lower()
        may_hold = thorough or self._storage.may_hold(lower, fold=True)
        return may_hold and self._storage.table().contains(lambda record: str(record.get("id")).lower() == lower)

    def ids_from(self, prefix: str) -> list[str]:
        """Return the ids that begin with a prefix, the newest first."""
        if not self._storage.may_hold(prefix, whole=False):
            return []
        return [str(record["id"]) for record in self._newest_first(lambda value: str(value["id"]).startswith(prefix))]

    def records(self, statuses: Collection[str] = (), *, thorough: bool = False) -> list[Record]:
        """Return the records, newest first; only those of some statuses if any are given."""
        if statuses and not (thorough or any(map(self._storage.may_hold, statuses))):
            return []
        return self._newest_first(lambda record: not statuses or record.get("status") in statuses)

    def problems(self) -> Iterator[tuple[Path, str]]:
        """Yield each damaged file, with the reason why it is damaged."""
        for path, problem in ((self._path, self._storage.problem()), self._backup_problem()):
            if problem is not None:
                yield path, problem

    def close(self) -> None:
        """Close the file that reading keeps open."""
        self._storage.close()

    def _newest_first(self, is_wanted: QueryLike) -> list[Record]:
        found = self._storage.table().search(is_wanted)
        return [dict(record) for record in sorted(found, key=lambda record: record.doc_id, reverse=True)]

    # -- changing; only the holder of the lock may call `insert`, `update`, `remove` and `delete` -------------------

    @contextmanager
    def writing(self) -> Iterator[Segment]:
        """Hold the lock, and restore the file first if it is damaged or lost."""
        with locked(self._lock):
            with writing_to(self._path):
                self._restore()
            yield self

    def insert(self, *records: Record) -> None:
        """Add records, all or none."""
        self._change(lambda: self._storage.table().insert_multiple(records))

    def update(self, record: Record) -> None:
        """Change the record that has the same id."""
        self._change(lambda: self._storage.table().update(record, _has_id(record["id"])))

    def remove(self, *task_ids: str) -> None:
        """Remove records."""
        ids = frozenset(task_ids)
        self._change(lambda: self._storage.table().remove(lambda record: record.get("id") in ids))

    def delete(self) -> None:
        """Remove both files."""
        self.close()
        with writing_to(self._path):
            # In this order: a previous generation without the file would be restored.
            backup_of(self._path).unlink(missing_ok=True)
            self._path.unlink()
            sync(self._path.parent)

    def restore(self) -> None:
        """Move damaged files aside, the previous generation too, and restore the segment from a good one."""
        with self.writing(), writing_to(self._path):
            self._move_damaged(*self._backup_problem())

    def _restore(self) -> None:
        backup = backup_of(self._path)
        damaged = self._move_damaged(self._path, self._storage.problem())
        if self._path.exists() or not (damaged or backup.exists()):
            return
        if not self._move_damaged(*self._backup_problem()) and backup.exists():
            keep_backup(backup, self._path)
            self._warn(f"{self._path} was restored from its previous generation; its last change may be lost")
        sync(self._path.parent)

    def _move_damaged(self, path: Path, problem: str | None) -> bool:
        if problem is None:
            return False
        self._warn(f"{path} is damaged ({problem}); it was moved to {move_aside(path).name}")
        return True

    def _backup_problem(self) -> tuple[Path, str | None]:
        backup = backup_of(self._path)
        return backup, problem_of(partial(read_tables, backup))

    def _change(self, change: Callable[[], object]) -> None:
        try:
            change()
        except BaseException:
            self._storage.close()
            raise


def _has_id(task_id: str) -> QueryLike:
    # A plain function in place of TinyDB's `where`, which takes ten times as long a record.
    return lambda value: value.get("id") == task_id


def segment_numbers(folder: Path) -> list[int]:
    """Return the numbers of the segments that can be read, newest first; empty if there is no journal."""
    return sorted({number for number, suffix in _names(folder) if suffix in _READABLE}, reverse=True)


def next_number(folder: Path) -> int:
    """Return the number of the newest segment, or the one after it if that was moved aside."""
    names = _names(folder)
    newest = max((number for number, _ in names), default=0)
    moved = any(number == newest and ".damaged-" in suffix for number, suffix in names)
    live = any(number == newest and suffix in _READABLE for number, suffix in names)
    return newest + 1 if moved and not live else newest


def number_of(path: Path) -> int | None:
    """Return the number of the segment that a file is or was of; None if it is not of a segment."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None


def _names(folder: Path) -> list[tuple[int, str]]:
    try:
        with reading_from(folder):
            matches = [_NAME.fullmatch(path.name) for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return [(int(match[1]), match[2] or "") for match in matches if match]
