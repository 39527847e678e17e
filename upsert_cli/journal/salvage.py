"""Salvage: the whole tasks in a damaged segment, which was moved aside, go back into the journal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from upsert_cli.atomic import read_whole, sync
from upsert_cli.journal.files import reading_from, writing_to
from upsert_cli.journal.journal import Journal
from upsert_cli.journal.layout import number_of, valid_task_id
from upsert_cli.journal.segments import Record
from upsert_cli.journal.task import Task

SALVAGED = ".repaired"  # ends the name of a damaged file whose whole tasks are back in the journal

_RECORD = re.compile(r'\{\s*"id"\s*:')  # a record begins with its id, as the journal writes it


def salvage(path: Path, journal: Journal) -> Iterator[str]:
    """Put the tasks of a damaged file back, rename the file, and yield a line for each file of a segment.

    Only the holder of the allocation lock may call this. A task is left alone if its state in the journal is newer.
    """
    if (number := number_of(path)) is not None:
        with reading_from(path):
            records = list(whole_records(read_whole(path)))
        added, renewed = journal.table.put_back(number, _newest(records))
        found = f"{path.name}: {len(records)} whole {'task' if len(records) == 1 else 'tasks'} found"
        yield f"{found}, {len(added)} put back, {len(renewed)} brought to a newer state"
    with writing_to(path):
        path.rename(path.with_name(path.name + SALVAGED))
        sync(path.parent)


def whole_records(raw: bytes) -> Iterator[Record]:
    """Yield the records of tasks that are whole in the bytes of a damaged segment."""
    text = raw.decode("latin-1")  # one character a byte, so that nothing is lost or made up
    decoder = json.JSONDecoder()
    after = 0
    for match in _RECORD.finditer(text):
        if match.start() < after:
            continue  # inside a record that was yielded
        try:
            record, end = decoder.raw_decode(text, match.start())
            Task.from_record(record)
        except (ValueError, RecursionError):
            continue
        # The journal writes ASCII: any other byte was not there when the record was written.
        if text[match.start() : end].isascii() and _has_id_and_time(record):
            after = end
            yield record


def _has_id_and_time(record: Record) -> bool:
    return isinstance(record["id"], str) and valid_task_id(record["id"]) and isinstance(record["updated_at"], str)


def _newest(records: Sequence[Record]) -> list[Record]:
    """Return the newest record of each task, in the order of the file."""
    newest: dict[str, Record] = {}
    for record in records:
        known = newest.get(record["id"], record)
        newest[record["id"]] = known if known["updated_at"] > record["updated_at"] else record
    return list(newest.values())
