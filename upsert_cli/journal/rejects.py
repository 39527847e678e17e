"""The rejects of a task: its rejects file, the file of those that are retried, and the first ones for its record."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.checkpoint import Checkpoint
from upsert_cli.journal.file_access import writing_to
from upsert_cli.journal.json_lines import JsonLines, file_size, read_json_lines, valid_json

if TYPE_CHECKING:
    from upsert_cli.journal.layout import TaskFiles

FAILED_ITEMS = 20  # rejects in a task's record; all of them are in its rejects file
FAILED_ITEMS_CHARS = 16_384  # characters of JSON for all rejects in a record, so that a segment stays small


class RejectsFile(JsonLines):
    """A rejects file that is open for appending."""

    @classmethod
    def rewrite(cls, path: Path, bundles: Iterable[Iterable[Mapping[str, Any]]]) -> None:
        """Replace a rejects file by one with other records, whole or not at all; remove it if there are none."""
        with cls.rewriting(path) as new:
            length = max((new.append(bundle) for bundle in bundles), default=0)
        if not length:
            with writing_to(path):
                path.unlink(missing_ok=True)

    @staticmethod
    def line_of(value: Mapping[str, Any]) -> str:
        """Return a record as a line of the file, without the item if that cannot be written."""
        try:
            return valid_json(dict(value))
        except (RecursionError, TypeError, ValueError) as error:
            # No fault of an item may end the load.
            bare = {"payload": None, "item_info": None, "detail": f"{value.get('detail')} (item left out: {error})"}
            return valid_json(dict(value) | bare)

    @staticmethod
    def read(path: Path, *, length: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the records of a rejects file, of its first `length` bytes if given; nothing if it is missing.

        Raises:
            JournalDamaged: A line makes no sense.
        """
        return (record for record, _ in read_json_lines(path, _reject, length=length))

    @staticmethod
    def count(path: Path, *, length: int | None = None) -> int:
        """Return the number of records that `read` yields."""
        return RejectsFile.extent(path, length=length)[0]

    @staticmethod
    def extent(path: Path, *, length: int | None = None) -> tuple[int, int]:
        """Return the number of records that `read` yields, and the bytes that they take."""
        count = size = 0
        for _, taken in read_json_lines(path, _reject, length=length):
            count, size = count + 1, size + taken
        return count, size

    @staticmethod
    def size(path: Path) -> int:
        """Return the length of a rejects file in bytes; 0 if it is missing."""
        return file_size(path)


def known_rejects(files: TaskFiles, *, checkpoint: Checkpoint | None, count: int) -> Iterator[dict[str, Any]]:
    """Yield the committed rejects of a task: those of this attempt, then those that still wait to be retried.

    Args:
        files: Of the task.
        checkpoint: Its last one; the rejects after it will be found again.
        count: How many rejects the task counts, which limits them if there is no checkpoint.

    Raises:
        JournalDamaged: A line makes no sense.
    """
    waiting = None if files.rejects.exists() else 0  # the files were renamed, and then came a crash
    records = RejectsFile.read(files.rejects, length=None if checkpoint is None else checkpoint.rejects_bytes)
    if checkpoint is not None and checkpoint.retried is not None:
        waiting = checkpoint.retried
    if waiting is not None:
        records = itertools.chain(records, itertools.islice(RejectsFile.read(files.retry), waiting, None))
    return records if checkpoint is not None else itertools.islice(records, count)


def first_rejects(items: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the first rejects with valid text, as many as fit; the next ones without payload, and marked as `cut`."""
    room = FAILED_ITEMS_CHARS
    for item in itertools.islice(items, FAILED_ITEMS):
        text = valid_json(item)
        if (room := room - len(text)) >= 0:
            yield json.loads(text)
        else:
            yield json.loads(valid_json(_cut(item)))


def rejects_lost(task_id: str, failed: int) -> UpsertCliError:
    """Return the error for a rejects file that does not hold what its task counts."""
    return UpsertCliError(
        message=f"the rejects file of task {task_id} does not hold its {failed} rejected items; "
        f"load all rows again with `upsert-cli restart {task_id} --from-start`"
    )


def _reject(value: Any) -> dict[str, Any] | None:
    match value:
        case {"source": str(), "row": int(), **_others}:
            return dict(value)
    return None


def _cut(item: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _short(value) for key, value in item.items()} | {"payload": None, "item_info": None, "cut": True}


def _short(value: object) -> object:
    longest = FAILED_ITEMS_CHARS // FAILED_ITEMS // 4  # characters; few enough that all items fit when all are cut
    if isinstance(value, str):
        return value[:longest]
    return value if len(valid_json(value)) <= longest else None
