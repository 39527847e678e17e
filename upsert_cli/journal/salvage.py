"""Damaged segments -> tasks: what is whole in the bytes of a damaged file goes back into the journal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from upsert_cli.atomic import read_whole, sync
from upsert_cli.journal.segments import SETTLED, Damage, moved_aside, number_of
from upsert_cli.journal.state_files import reading_from, writing_to
from upsert_cli.journal.storage import Record
from upsert_cli.journal.task import Task, valid_task_id
from upsert_cli.journal.task_table import TaskTable

_RECORD = re.compile(r'\{\s*"id"\s*:')  # a record begins with its id, as the journal writes it


def repair(folder: Path, history: TaskTable, *, tell: Callable[[str], None]) -> None:
    """Deals with all damage in a journal's segments; only the holder of the allocation lock may call this.

    A damaged file is moved aside, the generation before it restored, and each task that is whole in a damaged file put
    back, unless the journal has it in that state or a newer one. What is interrupted is done again by the next repair.

    Args:
        folder: The journal's.
        history: Its segments.
        tell: Told each step in one line.
    """
    history.mend()
    for damage in moved_aside(folder):
        if not damage.settled:
            _salvage(damage, history, tell)


def _salvage(damage: Damage, history: TaskTable, tell: Callable[[str], None]) -> None:
    path = damage.path
    if (number := number_of(path)) is not None:
        with reading_from(path):
            records = list(whole_records(read_whole(path)))
        added, renewed = history.put_back(number, _newest(records))
        found = f"{path.name}: {len(records)} whole {'task' if len(records) == 1 else 'tasks'} found"
        tell(f"{found}, {len(added)} put back, {len(renewed)} brought to a newer state")
    with writing_to(path):
        path.rename(path.with_name(path.name + SETTLED))
        sync(path.parent)


def whole_records(raw: bytes) -> Iterator[Record]:
    """Yields the tasks' records that are whole in the bytes of a segment, whatever stands around them."""
    text = raw.decode("latin-1")  # one character a byte, so that nothing is lost or made up
    decoder = json.JSONDecoder()
    behind = 0
    for match in _RECORD.finditer(text):
        if match.start() < behind:
            continue  # inside a record that is whole already
        try:
            record, end = decoder.raw_decode(text, match.start())
            Task.from_record(record)
        except (ValueError, RecursionError):
            continue
        # The journal writes ASCII: any other byte was not there when the record was written.
        if text[match.start() : end].isascii() and _is_in_order(record):
            behind = end
            yield record


def _is_in_order(record: Record) -> bool:
    return isinstance(record["id"], str) and valid_task_id(record["id"]) and isinstance(record["updated_at"], str)


def _newest(records: Iterable[Record]) -> list[Record]:
    newest: dict[str, Record] = {}
    for record in records:
        known = newest.get(record["id"])
        if known is None or known["updated_at"] <= record["updated_at"]:
            newest[record["id"]] = record
    return list(newest.values())
