"""The segments of a journal: files of up to 500 tasks, each with a lock and its previous generation.

The cost of a change grows with a TinyDB table, from 3 ms at 100 tasks to 3 seconds at 100,000, so a journal has many.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from upsert_cli.atomic import keep_backup, move_aside, sync
from upsert_cli.errors import JournalDamaged
from upsert_cli.journal.file_access import locked, reading_from, writing_to
from upsert_cli.journal.storage import TaskFile, backup_of

RETRY_PAUSE = 0.01  # seconds after which a reader looks again at a file that it could not make sense of

_T = TypeVar("_T")
_NAME = re.compile(r"tasks-(\d{6,})\.json(\..+)?")
_READABLE = ("", ".bak")
SALVAGED = ".repaired"  # ends the name of a damaged file whose whole tasks are back in the journal


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A file of the journal that is damaged."""

    path: Path
    reason: str

    settled: bool = False
    """Whether it was moved aside, and its whole tasks are back in the journal."""


class Segment:
    """A task file with its previous generation, its lock, and the way back from damage."""

    def __init__(self, folder: Path, number: int, *, warn: Callable[[str], None]) -> None:
        """Touch nothing.

        Args:
            folder: The journal's.
            number: Of the segment.
            warn: Called with each damage that is found, and how it is handled.
        """
        self.file = TaskFile(folder / f"tasks-{number:06}.json")
        self._folder = folder
        self._warn = warn

    def read(self, question: Callable[[TaskFile], _T], *, otherwise: _T) -> _T:
        """Answer a question without a lock: from the file, if need be a moment later, or from its previous generation.

        Args:
            question: Asks one of these files.
            otherwise: The answer if the segment is gone.

        Raises:
            JournalDamaged: Neither file makes sense.
        """
        problem: JournalDamaged | None = None
        for pause in (RETRY_PAUSE, 0.0):
            try:
                return question(self.file)
            except FileNotFoundError:
                continue
            except JournalDamaged as error:
                problem = error
                time.sleep(pause)
        try:
            answer = question(self._backup)
        except FileNotFoundError:
            if problem is not None:
                raise problem from None
            return otherwise
        except JournalDamaged as error:
            raise problem or error from None
        state = f"damaged ({problem.reason})" if problem else "missing"
        self._warn(f"{self.file.path} is {state}; reading its previous generation")
        return answer

    @cached_property
    def _backup(self) -> TaskFile:
        return TaskFile(backup_of(self.file.path))

    @contextmanager
    def writing(self) -> Iterator[TaskFile]:
        """Hold the segment's lock and yield its file, restored if it was damaged."""
        with locked(self._folder / "locks" / f"{self.file.path.stem}.lock"):
            with writing_to(self.file.path):
                self._restore()
            yield self.file

    def damaged(self) -> Iterator[Damage]:
        """Yield each damaged file of the segment."""
        for file in (self.file, self._backup):
            if (problem := file.problem()) is not None:
                yield Damage(path=file.path, reason=problem)

    def restore(self) -> None:
        """Move damaged files aside, the previous generation too, and restore the segment from a good one."""
        with self.writing(), writing_to(self.file.path):
            self._moved_if_damaged(self._backup)

    def remove(self) -> None:
        """Remove both files; only the holder of the segment's lock may call this."""
        self.close()
        with writing_to(self.file.path):
            # In this order: a previous generation without the file would be restored.
            backup_of(self.file.path).unlink(missing_ok=True)
            self.file.path.unlink()
            sync(self.file.path.parent)

    def close(self) -> None:
        """Close the files that reading keeps open."""
        self.file.close()
        if "_backup" in vars(self):
            self._backup.close()

    def _restore(self) -> None:
        damaged = self._moved_if_damaged(self.file)
        if self.file.exists or not (damaged or self._backup.exists):
            return
        self._moved_if_damaged(self._backup)
        if self._backup.exists:
            keep_backup(self._backup.path, self.file.path)
            self._warn(f"{self.file.path} was restored from its previous generation; its last change may be lost")
        sync(self.file.path.parent)

    def _moved_if_damaged(self, file: TaskFile) -> bool:
        if (problem := file.problem()) is None:
            return False
        self._warn(f"{file.path} is damaged ({problem}); it was moved to {move_aside(file.path).name}")
        return True


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


def moved_aside(folder: Path) -> Iterator[Damage]:
    """Yield the damaged files that were moved out of the way."""
    for path in sorted(folder.glob("*.damaged-*")):
        settled = path.name.endswith(SALVAGED)
        whole = "; its whole tasks are in the journal" if settled else ""
        yield Damage(path=path, reason=f"it was found damaged and moved aside{whole}", settled=settled)


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
