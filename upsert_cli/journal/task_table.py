"""All segments of a journal as one sequence of records, of which only a few are open at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from upsert_cli.errors import JournalDamaged, TaskNotFound
from upsert_cli.journal.segments import Damage, Segment, moved_aside, next_number, segment_numbers
from upsert_cli.journal.storage import Record, TaskFile
from upsert_cli.journal.task import valid_task_id

OPEN_SEGMENTS = 4  # segments of which the parsed content is kept, about 2 MB each
THOROUGH = 4  # newest segments that are parsed before an id is called unknown, so that no damage there hides a task


class TaskTable:
    """The records of all tasks."""

    def __init__(self, folder: Path, *, warn: Callable[[str], None]) -> None:
        """Touches nothing."""
        self._folder = folder
        self._warn = warn
        self._open: dict[int, Segment] = {}
        self._places: dict[str, int] = {}

    def find(self, task_id: str) -> Record:
        """Returns the record of a task, without a lock.

        Raises:
            TaskNotFound: There is none of this id in what can be read.
        """
        unreadable = 0
        for number, thorough in self._search_order(task_id):
            with self._borrowed(number) as segment:
                ask = partial(TaskFile.find, task_id=task_id, thorough=thorough)
                try:
                    record = segment.read(ask, otherwise=None)
                except JournalDamaged as error:
                    self._warn(str(error))
                    unreadable += 1
                    continue
                if record is not None:
                    self._keep(number, segment)
                    self._places[task_id] = number
                    return record
        raise self._not_found(task_id, unreadable=unreadable)

    def ids_from(self, prefix: str) -> Iterator[str]:
        """Yield the ids that begin with a prefix, the newest first, of the segments that can be read."""
        ask = partial(TaskFile.ids_from, prefix=prefix)
        none: list[str] = []
        for number in segment_numbers(self._folder):
            with self._borrowed(number) as segment:
                try:
                    yield from segment.read(ask, otherwise=none)
                except JournalDamaged as error:
                    self._warn(str(error))

    def newest_first(self, *statuses: str) -> Iterator[Record]:
        """Yield the records of some statuses, or of all, without a lock; read a segment only when it is their turn."""
        for place, number in enumerate(segment_numbers(self._folder)):
            yield from self._records(number, statuses, thorough=place < THOROUGH)

    def oldest_first(self, *statuses: str) -> Iterator[Record]:
        """Yields the records of some statuses without a lock, and parses only the segments that have such."""
        for number in reversed(segment_numbers(self._folder)):
            yield from reversed(self._records(number, statuses, thorough=False))

    def is_taken(self, task_id: str) -> bool:
        """Tells whether a task has this id; where the file system ignores case, also whether one is spelled like it."""
        for number, thorough in self._search_order(task_id):
            with self._borrowed(number) as segment:
                ask = partial(TaskFile.takes, task_id=task_id, thorough=thorough)
                try:
                    if segment.read(ask, otherwise=False):
                        return True
                except JournalDamaged as error:
                    self._warn(str(error))
        return False

    def append(self, task_id: str, record: Record) -> None:
        """Adds a record; only the holder of the allocation lock may call this."""
        number = self._number_with_room()
        with self._segment(number).writing() as file:
            file.insert(record)
        self._places[task_id] = number

    def bring_back(self, record: Record) -> bool:
        """Gives a task this record, also one that is gone; only the holder of the allocation lock may call this.

        Returns:
            False where the id stands for a task that was created at another time.
        """
        if not self.is_taken(record["id"]):
            self.append(record["id"], record)
            return True
        with self.changing(record["id"]) as (file, present):
            is_same = bool(present.get("created_at") == record["created_at"])
            if is_same:
                file.update(record)
            return is_same

    @contextmanager
    def changing(self, task_id: str) -> Iterator[tuple[TaskFile, Record]]:
        """Holds the lock of a task's segment and yields that and the task's record.

        Raises:
            TaskNotFound: There is none of this id, or none any more.
        """
        self.find(task_id)
        with self._segment(self._places[task_id]).writing() as file:
            if not file.exists or (record := file.find(task_id)) is None:
                raise self._not_found(task_id, unreadable=1)
            yield file, record

    def remove(self, task_id: str) -> None:
        """Takes a record out.

        Raises:
            TaskNotFound: There is none of this id.
        """
        with self.changing(task_id) as (file, _):
            file.remove(task_id)
        del self._places[task_id]

    def remove_some(
        self, number: int, goes: Callable[[Record], bool], *, before: Callable[[list[str]], None]
    ) -> list[str]:
        """Takes records out of a segment, all or none, and the segment with them if none is left.

        Only the holder of the allocation lock may call this.

        Args:
            number: Of the segment.
            goes: Tells of a record whether it is to go.
            before: Called with the ids of those before anything is changed.
        """
        segment = self._segment(number)
        with segment.writing() as file:
            records = file.records() if file.exists else []
            if not (ids := [record["id"] for record in records if goes(record)]):
                return []
            before(ids)
            # The newest stays, empty, so that no number is used twice.
            if len(ids) == len(records) and number != next_number(self._folder):
                segment.remove()
            else:
                file.remove(*ids)
        for task_id in ids:
            self._places.pop(task_id, None)
        return ids

    def mend(self) -> None:
        """Moves all that is damaged aside, and restores what has a good generation before it."""
        for number in segment_numbers(self._folder):
            with self._borrowed(number) as segment:
                segment.mend()

    def put_back(self, number: int, records: Sequence[Record]) -> tuple[list[str], list[str]]:
        """Adds records to the segment that they come from; only the holder of the allocation lock may call this.

        Args:
            number: Of the segment; it is made again if it is gone.
            records: Of different tasks. One that the journal has is left as it is, unless this record is newer.

        Returns:
            The ids of those that were added, and of those that were brought to a newer state.
        """
        known = {record["id"] for record in records if self.is_taken(record["id"])}
        missing = [record for record in records if record["id"] not in known]
        if missing:
            with self._segment(number).writing() as file:
                file.insert(*missing)
        renewed = [record["id"] for record in records if record["id"] in known and self._renew(record)]
        return [record["id"] for record in missing], renewed

    def damaged(self) -> Iterator[Damage]:
        """Yields the damaged files of all segments, and those that were and are moved aside."""
        yield from moved_aside(self._folder)
        for number in segment_numbers(self._folder):
            with self._borrowed(number) as segment:
                yield from segment.damaged()

    def close(self) -> None:
        """Closes the files that reading keeps open."""
        while self._open:
            self._open.popitem()[1].close()

    def _records(self, number: int, statuses: Sequence[str], *, thorough: bool) -> list[Record]:
        ask = partial(TaskFile.records, statuses=statuses, thorough=thorough)
        none: list[Record] = []
        with self._borrowed(number) as segment:
            try:
                return segment.read(ask, otherwise=none)
            except JournalDamaged as error:
                self._warn(str(error))
                return none

    def _renew(self, record: Record) -> bool:
        try:
            with self.changing(record["id"]) as (file, present):
                is_newer = bool(record["updated_at"] > present["updated_at"])
                if is_newer:
                    file.update(record)
                return is_newer
        except TaskNotFound:
            return False  # taken by an id that differs in case alone, where the file system ignores that

    def _number_with_room(self) -> int:
        newest = next_number(self._folder)
        with self._segment(newest).writing() as file:
            has_room = file.has_room
        # Looked up again, since a damaged segment was just moved aside, and then its number is used up.
        number = next_number(self._folder)
        return number if has_room or number != newest else number + 1

    def _search_order(self, task_id: str) -> Iterator[tuple[int, bool]]:
        """Yields the numbers of the segments in which to look, and whether to look thoroughly."""
        if not valid_task_id(task_id):
            return
        if (known := self._places.get(task_id)) is not None:
            yield known, True
        numbers = segment_numbers(self._folder)
        yield from ((number, False) for number in numbers if number != known)
        yield from ((number, True) for number in numbers[:THOROUGH])

    @contextmanager
    def _borrowed(self, number: int) -> Iterator[Segment]:
        """Yields a segment that is closed afterwards unless it is kept, so that a search does not fill the memory."""
        segment = self._open.get(number) or Segment(self._folder, number, warn=self._warn)
        try:
            yield segment
        finally:
            if number not in self._open:
                segment.close()

    def _segment(self, number: int) -> Segment:
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
