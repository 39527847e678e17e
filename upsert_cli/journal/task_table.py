"""The records of all tasks, in segments; only a few segments are open at a time."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from upsert_cli.errors import JournalDamaged, TaskNotFound, UsageFault
from upsert_cli.journal.layout import LATEST, next_number, segment_numbers, valid_task_id
from upsert_cli.journal.segments import Record, Segment

NAMED_CANDIDATES = 10  # ids in the message about an ambiguous prefix
OPEN_SEGMENTS = 4  # segments whose parsed content is kept, about 2 MB each
FOLDS_CASE = sys.platform in ("darwin", "win32")  # a.lease and A.lease are one file there
THOROUGH = 4  # newest segments, which are parsed before an id is called unknown: damage there would hide a task


class TaskTable:
    """The table of all tasks, which is divided into segments."""

    def __init__(self, folder: Path, *, warn: Callable[[str], None]) -> None:
        """Read nothing yet; `warn` is called with each damage that is found, and how it was handled."""
        self._folder = folder
        self._warn = warn
        self._open: dict[int, Segment] = {}
        self._numbers: dict[str, int] = {}

    # -- reading, without a lock ----------------------------------------------------------------------------------

    def find(self, task_id: str) -> Record:
        """Return the record of a task.

        Raises:
            TaskNotFound: No readable segment has a task of this id.
        """
        unreadable: set[int] = set()
        for number, thorough in self._search_order(task_id):
            with self._reading(number, unreadable) as segment:
                if (record := segment.find(task_id, thorough=thorough)) is not None:
                    self._keep(number, segment)
                    self._numbers[task_id] = number
                    return record
        raise self._not_found(task_id, unreadable=len(unreadable))

    def resolve(self, name: str) -> str:
        """Return the id that a name stands for; see `Journal.resolve`."""
        try:
            self.find(name)
        except TaskNotFound as error:
            candidates = [] if error.unreadable else [*self._candidates(name)]
            if not candidates:
                raise
            if len(candidates) > 1:
                raise _ambiguous(name, candidates) from None
            return candidates[0]
        return name

    def newest_first(self, *statuses: str) -> Iterator[Record]:
        """Yield the records with one of the statuses, or all without any; read a segment only when it is its turn."""
        for position, number in enumerate(segment_numbers(self._folder)):
            yield from self._records(number, statuses, thorough=position < THOROUGH)

    def oldest_first(self, *statuses: str) -> Iterator[Record]:
        """Yield the records with one of the statuses; parse only the segments that hold any."""
        for number in reversed(segment_numbers(self._folder)):
            yield from reversed(self._records(number, statuses, thorough=False))

    def is_taken(self, task_id: str) -> bool:
        """Check whether a task has this id or, where the file system ignores case, one that differs in case alone."""
        spelled: Callable[[str], str] = str.lower if FOLDS_CASE else str

        def is_alike(value: Mapping[str, Any]) -> bool:
            return spelled(str(value.get("id"))) == spelled(task_id)

        for number, thorough in self._search_order(task_id):
            with self._reading(number) as segment:
                if segment.search(is_alike, task_id, thorough=thorough):
                    return True
        return False

    def problems(self) -> Iterator[tuple[Path, str]]:
        """Yield each damaged file of all segments, with the reason why it is damaged."""
        for number in segment_numbers(self._folder):
            with self._reading(number) as segment:
                yield from segment.problems()

    def close(self) -> None:
        """Close the files that reading keeps open."""
        while self._open:
            self._open.popitem()[1].close()

    # -- changing, under the lock of a segment --------------------------------------------------------------------

    @contextmanager
    def changing(self, task_id: str) -> Iterator[tuple[Segment, Record]]:
        """Hold the lock of a task's segment, and yield the segment and the task's record.

        Raises:
            TaskNotFound: No task has this id, or no longer.
        """
        self.find(task_id)
        with self._segment(self._numbers[task_id]).writing() as segment:
            if (record := segment.find(task_id)) is None:
                raise self._not_found(task_id, unreadable=1)
            yield segment, record

    def remove(self, task_id: str) -> None:
        """Remove a record.

        Raises:
            TaskNotFound: No task has this id.
        """
        with self.changing(task_id) as (segment, _):
            segment.remove(task_id)
        del self._numbers[task_id]

    # -- changing, under the allocation lock as well --------------------------------------------------------------

    def append(self, task_id: str, record: Record) -> None:
        """Add a record."""
        number = self._number_with_room()
        with self._segment(number).writing() as segment:
            segment.insert(record)
        self._numbers[task_id] = number

    def bring_back(self, record: Record) -> bool:
        """Restore a task's record, even if it is gone; return False if the id stands for another task by now."""
        if not self.is_taken(record["id"]):
            self.append(record["id"], record)
            return True
        return self._update_if(record, lambda old, new: bool(old.get("created_at") == new["created_at"]))

    def remove_some(
        self, number: int, is_wanted: Callable[[Record], bool], *, before: Callable[[list[str]], None]
    ) -> list[str]:
        """Remove the wanted records of a segment, all or none, and return their ids.

        `before` is called with the ids before anything is removed. A segment that is empty then is removed, too.
        """
        with self._segment(number).writing() as segment:
            records = segment.records()
            if not (ids := [record["id"] for record in records if is_wanted(record)]):
                return []
            before(ids)
            # The newest segment stays, even empty, so that no number is used twice.
            if len(ids) == len(records) and number != next_number(self._folder):
                segment.delete()
            else:
                segment.remove(*ids)
        for task_id in ids:
            self._numbers.pop(task_id, None)
        return ids

    def restore(self) -> None:
        """Move damaged files aside, and restore each segment whose previous generation is intact."""
        for number in segment_numbers(self._folder):
            with self._reading(number) as segment:
                segment.restore()

    def put_back(self, number: int, records: Sequence[Record]) -> tuple[list[str], list[str]]:
        """Put records of different tasks back, unless the journal has them in that state or a newer one.

        Returns:
            The ids of the records that were added to the segment, and of those that were brought to a newer state.
        """
        known = {record["id"] for record in records if self.is_taken(record["id"])}
        missing = [record for record in records if record["id"] not in known]
        if missing:
            with self._segment(number).writing() as segment:
                segment.insert(*missing)
        present = (record for record in records if record["id"] in known)
        renewed = [record["id"] for record in present if self._update_if(record, _is_newer)]
        return [record["id"] for record in missing], renewed

    # -- inside ---------------------------------------------------------------------------------------------------

    def _candidates(self, name: str) -> Iterator[str]:
        """Yield the ids that begin with a name, or the newest id for `latest`."""
        if name == LATEST:
            yield from itertools.islice((str(record.get("id")) for record in self.newest_first()), 1)
            return
        for number in segment_numbers(self._folder):
            with self._reading(number) as segment:
                found = segment.search(lambda record: str(record.get("id", "")).startswith(name), name, whole=False)
                yield from (str(record["id"]) for record in found)

    def _records(self, number: int, statuses: Sequence[str], *, thorough: bool) -> list[Record]:
        records: list[Record] = []  # of an unreadable segment
        with self._reading(number) as segment:
            records = segment.records(statuses, thorough=thorough)
        return records

    def _update_if(self, record: Record, is_due: Callable[[Record, Record], bool]) -> bool:
        """Replace the record of the same id if `is_due` says so, given the present record and the new one."""
        with suppress(TaskNotFound), self.changing(record["id"]) as (segment, present):
            if is_due(present, record):
                segment.update(record)
                return True
        return False  # also if the ids differ in case alone, on a file system that ignores case

    def _number_with_room(self) -> int:
        """Return the number of the newest segment, or the next number if that segment is full."""
        newest = next_number(self._folder)
        with self._segment(newest).writing() as segment:
            has_room = segment.has_room
        # Once more, since the number of a damaged segment that was just moved aside is not used again.
        number = next_number(self._folder)
        return number if has_room or number != newest else number + 1

    def _search_order(self, task_id: str) -> Iterator[tuple[int, bool]]:
        """Yield the numbers of the segments to search, each with whether to search it thoroughly."""
        if not valid_task_id(task_id):
            return
        if (known := self._numbers.get(task_id)) is not None:
            yield known, True
        numbers = segment_numbers(self._folder)
        yield from ((number, False) for number in numbers if number != known)
        yield from ((number, True) for number in numbers[:THOROUGH])

    @contextmanager
    def _reading(self, number: int, unreadable: set[int] | None = None) -> Iterator[Segment]:
        """Yield a segment, and close it afterwards unless it is kept, so that a search does not fill the memory.

        If the segment is too damaged to be read, the block ends with a warning, and `unreadable` gets its number.
        """
        segment = self._open.get(number) or Segment(self._folder, number, warn=self._warn)
        try:
            yield segment
        except JournalDamaged as error:
            self._warn(str(error))
            if unreadable is not None:
                unreadable.add(number)
        finally:
            if number not in self._open:
                segment.close()

    def _segment(self, number: int) -> Segment:
        """Return a segment that is kept open for the next call."""
        segment = self._open.get(number) or Segment(self._folder, number, warn=self._warn)
        self._keep(number, segment)
        return segment

    def _keep(self, number: int, segment: Segment) -> None:
        self._open.pop(number, None)
        self._open[number] = segment
        while len(self._open) > OPEN_SEGMENTS:
            self._open.pop(next(iter(self._open))).close()

    def _not_found(self, task_id: str, *, unreadable: int) -> TaskNotFound:
        return TaskNotFound(task_id=task_id, journal=str(self._folder), unreadable=unreadable)


def _is_newer(old: Record, new: Record) -> bool:
    return bool(old["updated_at"] < new["updated_at"])


def _ambiguous(prefix: str, candidates: Sequence[str]) -> UsageFault:
    named, more = candidates[:NAMED_CANDIDATES], len(candidates) - NAMED_CANDIDATES
    others = f" and {more:,} more" if more > 0 else ""
    return UsageFault(
        message=f"{prefix!r} is the beginning of {len(candidates):,} task ids: {', '.join(named)}{others}; "
        f"type more of the id, or `latest` for the newest task"
    )
