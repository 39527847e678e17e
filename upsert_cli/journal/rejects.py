"""The rejects of a task: its rejects file, its retry file, and the first rejects, which its record has.

Both are files of JSON lines, which are only appended to, and on resume cut back to the length in the checkpoint.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from upsert_cli.atomic import make_folder, open_private, replacing, write_all
from upsert_cli.errors import JournalDamaged, UpsertCliError
from upsert_cli.journal.files import open_or_create, reading_from, writing_to
from upsert_cli.journal.progress import Checkpoint

if TYPE_CHECKING:
    from upsert_cli.journal.layout import TaskFiles

FAILED_ITEMS = 20  # rejects in a task's record; its rejects file has all of them
FAILED_ITEMS_CHARS = 16_384  # characters of JSON for all rejects in a record, so that a segment stays small

_T = TypeVar("_T")
# In JSON text: an escaped backslash, a pair of surrogates, or (as group 1) a lone surrogate. Compiled when used.
_ESCAPED_SURROGATE = r"\\\\|\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}|(\\ud[89a-f][0-9a-f]{2})"


class JsonLines:
    """A file of JSON lines that is open for appending, and made when the first value is written."""

    def __init__(self, path: Path, descriptor: int | None, length: int) -> None:
        """Take over a descriptor; callers use `open_at` or `rewriting`."""
        self._path = path
        self._descriptor = descriptor
        self._length = length

    @classmethod
    def open_at(cls, path: Path, length: int) -> JsonLines:
        """Open a file, and drop everything after its first `length` bytes."""
        with writing_to(path):
            try:
                descriptor = open_private(path, os.O_RDWR)
            except FileNotFoundError:
                return cls(path, None, 0)
            length = min(length, os.fstat(descriptor).st_size)  # or lost bytes would become zeros
            os.ftruncate(descriptor, length)
            return cls(path, descriptor, length)

    @classmethod
    @contextmanager
    def rewriting(cls, path: Path) -> Iterator[JsonLines]:
        """Yield an empty file that replaces `path`, durably, unless the block raises."""
        with ExitStack() as stack:  # so that an error of the block is not reported as one of the file
            with writing_to(path):
                make_folder(path.parent)
                descriptor = stack.enter_context(replacing(path, durable=True))
            yield cls(path, descriptor, 0)
            with writing_to(path):
                stack.close()

    def append(self, values: Iterable[Any]) -> int:
        """Append values, and return the length of the file in bytes for the checkpoint."""
        content = "".join(f"{json_line(value)}\n" for value in values).encode("ascii")
        if content:
            with writing_to(self._path):
                self._write(content)
            self._length += len(content)
        return self._length

    def close(self) -> None:
        """Close the file; its content survives a power failure from then on."""
        if self._descriptor is None:
            return
        with writing_to(self._path):
            try:
                os.fsync(self._descriptor)
            finally:
                os.close(self._descriptor)
                self._descriptor = None

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, content: bytes) -> None:
        if self._descriptor is None:
            self._descriptor = open_or_create(self._path)
        # At the known length, over the rest of an incomplete write.
        os.lseek(self._descriptor, self._length, os.SEEK_SET)
        write_all(self._descriptor, content)


def read_json_lines(
    path: Path, parse: Callable[[Any], _T | None], *, length: int | None = None
) -> Iterator[tuple[_T, int]]:
    """Yield the values of a file, each with the length of its line in bytes; nothing if the file is missing.

    Args:
        path: The file.
        parse: Returns the value to yield for a JSON value, or None if that has the wrong shape.
        length: The bytes to read, from the checkpoint; None for the whole file.

    Raises:
        JournalDamaged: A line makes no sense.
    """
    try:
        with reading_from(path):
            descriptor = open_private(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "rb") as file:
        lines = _whole_lines(file, os.fstat(descriptor).st_size if length is None else length)
        for number, line in enumerate(lines, 1):
            try:
                value = parse(json.loads(line.decode("ascii")))  # json would take zeros in bytes for UTF-32
            except (ValueError, RecursionError) as error:
                raise JournalDamaged(path=str(path), reason=f"line {number} is not JSON: {error}") from error
            if value is None:
                raise JournalDamaged(path=str(path), reason=f"line {number} is not a record of this file")
            yield value, len(line)


def file_size(path: Path) -> int:
    """Return the length of a file in bytes; 0 if it is missing."""
    try:
        with reading_from(path):
            return path.lstat().st_size
    except FileNotFoundError:
        return 0


def json_line(value: Any) -> str:
    """Return a value as JSON on one line of ASCII; a reject loses its item if that is not valid JSON."""
    try:
        return valid_json(value)
    except (RecursionError, TypeError, ValueError) as error:
        # The item's fault must not end the load.
        bare = {"payload": None, "item_info": None, "detail": f"{value.get('detail')} (item left out: {error})"}
        return valid_json(dict(value) | bare)


def valid_json(value: object) -> str:
    """Return a value as JSON on one line of ASCII, with U+FFFD in place of each lone surrogate."""
    text = json.dumps(value, allow_nan=False)
    # In the text, since replacing them in a deep value would need a recursion.
    if r"\ud" not in text:
        return text
    return re.sub(_ESCAPED_SURROGATE, lambda match: r"\ufffd" if match[1] else match[0], text)


def read_rejects(path: Path, *, length: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the records in the first `length` bytes of a rejects file, or in all of it; none if it is missing.

    Raises:
        JournalDamaged: A line makes no sense.
    """
    return (record for record, _ in read_json_lines(path, _reject, length=length))


def count_rejects(path: Path, *, length: int | None = None) -> int:
    """Return the number of records that `read_rejects` yields."""
    return rejects_extent(path, length=length)[0]


def rejects_extent(path: Path, *, length: int | None = None) -> tuple[int, int]:
    """Return the number of records that `read_rejects` yields, and their length in bytes."""
    count = size = 0
    for _, taken in read_json_lines(path, _reject, length=length):
        count, size = count + 1, size + taken
    return count, size


def rewrite_rejects(path: Path, bundles: Iterable[Iterable[Mapping[str, Any]]]) -> int:
    """Replace a rejects file, whole or not at all, and return its length in bytes; an empty file is removed."""
    with JsonLines.rewriting(path) as new:
        length = max((new.append(bundle) for bundle in bundles), default=0)
    if not length:
        with writing_to(path):
            path.unlink(missing_ok=True)
    return length


def known_rejects(files: TaskFiles, *, checkpoint: Checkpoint | None, count: int) -> Iterator[dict[str, Any]]:
    """Yield the committed rejects of a task; during a retry, then those that still wait to be retried.

    The rejects after the last checkpoint are left out, since their rows will be read again. Without a checkpoint, only
    the first `count` rejects are committed.

    Raises:
        JournalDamaged: A line makes no sense.
    """
    length, retried = (None, None) if checkpoint is None else (checkpoint.rejects_bytes, checkpoint.retried)
    if retried is None and not files.rejects.exists():
        retried = 0  # a crash may have come after the rejects file became the retry file
    records = read_rejects(files.rejects, length=length)
    if retried is not None:
        records = itertools.chain(records, itertools.islice(read_rejects(files.retry), retried, None))
    return records if checkpoint is not None else itertools.islice(records, count)


def first_rejects(items: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the first rejects with valid text; those that do not fit come without their item, and are marked `cut`."""
    room = FAILED_ITEMS_CHARS
    for item in itertools.islice(items, FAILED_ITEMS):
        text = valid_json(item)
        room -= len(text)
        yield json.loads(text if room >= 0 else valid_json(_cut(item)))


def rejects_lost(task_id: str, failed: int) -> UpsertCliError:
    """Return the error for a rejects file that lacks rejects which its task counts."""
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


def _whole_lines(lines: Iterable[bytes], length: int) -> Iterator[bytes]:
    for line in lines:
        length -= len(line)
        if length < 0 or not line.endswith(b"\n"):
            return  # the line is after the checkpoint, or is just being written
        yield line
