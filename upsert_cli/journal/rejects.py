"""The rejects file of a task: one JSON object a line, append-only, cut back to its checkpoint on resume."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from upsert_cli.atomic import make_folder, open_private, write_all
from upsert_cli.errors import JournalDamaged
from upsert_cli.journal.checkpoint import Checkpoint
from upsert_cli.journal.state_files import reading_from, writing_to
from upsert_cli.journal.valid_text import valid_json


class RejectsFile:
    """A rejects file that is open for writing; made at the first reject."""

    def __init__(self, path: Path, descriptor: int | None, length: int) -> None:
        """Takes over a descriptor; use `open_at`."""
        self._path = path
        self._descriptor = descriptor
        self._length = length

    @classmethod
    def open_at(cls, path: Path, length: int) -> RejectsFile:
        """Opens a rejects file behind its first `length` bytes, and drops the others."""
        with writing_to(path):
            try:
                descriptor = open_private(path, os.O_RDWR)
            except FileNotFoundError:
                return cls(path, None, 0)
            length = min(length, os.fstat(descriptor).st_size)  # never fill up with zeros what was lost
            os.ftruncate(descriptor, length)
            return cls(path, descriptor, length)

    @classmethod
    def rewrite(cls, path: Path, bundles: Iterable[Iterable[Mapping[str, Any]]]) -> None:
        """Replaces a rejects file by one with other records: whole or not at all, and none without a record."""
        beside = path.with_name(f"{path.name}.new")
        with cls.open_at(beside, 0) as new:
            length = max((new.append(bundle) for bundle in bundles), default=0)
        with writing_to(path):
            if length:
                beside.replace(path)
            else:
                path.unlink(missing_ok=True)
                beside.unlink(missing_ok=True)

    def append(self, records: Iterable[Mapping[str, Any]]) -> int:
        """Adds records and returns the length of the file in bytes, which belongs into the checkpoint."""
        content = "".join(f"{line_of(record)}\n" for record in records).encode("ascii")
        if content:
            with writing_to(self._path):
                self._write(content)
            self._length += len(content)
        return self._length

    def close(self) -> None:
        """Makes what was written survive a power failure."""
        if self._descriptor is None:
            return
        with writing_to(self._path):
            try:
                os.fsync(self._descriptor)
            finally:
                os.close(self._descriptor)
                self._descriptor = None

    @staticmethod
    def read(path: Path, *, limit: int | None = None, length: int | None = None) -> Iterator[dict[str, Any]]:
        """Yields the records of a rejects file; none where there is no file.

        Args:
            path: The file.
            limit: Records to yield at most; None: all.
            length: Bytes to read at most, as the checkpoint says; None: all.

        Raises:
            JournalDamaged: A line makes no sense.
        """
        yield from (record for record, _ in itertools.islice(_records(path, length), limit))

    @staticmethod
    def count(path: Path, *, length: int | None = None) -> int:
        """Returns the number of records that `read` yields."""
        return RejectsFile.extent(path, length=length)[0]

    @staticmethod
    def extent(path: Path, *, length: int | None = None) -> tuple[int, int]:
        """Returns the number of records that `read` yields, and the bytes that they take."""
        count = size = 0
        for _, taken in _records(path, length):
            count, size = count + 1, size + taken
        return count, size

    @staticmethod
    def size(path: Path) -> int:
        """Returns the length in bytes; 0 where there is no file."""
        try:
            with reading_from(path):
                return path.lstat().st_size
        except FileNotFoundError:
            return 0

    def __enter__(self) -> RejectsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, content: bytes) -> None:
        if self._descriptor is None:
            make_folder(self._path.parent)
            self._descriptor = open_private(self._path, os.O_RDWR | os.O_CREAT)
        # Always at the length that is known to be good, over whatever a write left there that did not come through.
        os.lseek(self._descriptor, self._length, os.SEEK_SET)
        write_all(self._descriptor, content)


def line_of(record: Mapping[str, Any]) -> str:
    """Returns a record as it stands in the file, in ASCII."""
    try:
        return valid_json(dict(record))
    except (RecursionError, TypeError, ValueError) as error:
        # A reject tells of a bad item; it must not end the load because of how bad that is.
        bare = {"payload": None, "item_info": None, "detail": f"{record.get('detail')} (item left out: {error})"}
        return valid_json(dict(record) | bare)


def known_rejects(failed: Path, retry: Path, *, checkpoint: Checkpoint | None, count: int) -> Iterator[dict[str, Any]]:
    """Yields the rejects that are settled: those that failed in this attempt, then those that wait to be retried.

    Args:
        failed: The rejects file.
        retry: The file of those that are being retried.
        checkpoint: What lies beyond it will be found again.
        count: How many the task counts; it tells what is settled where there is no checkpoint.

    Raises:
        JournalDamaged: A line makes no sense.
    """
    waiting = None if failed.exists() else 0  # the files were renamed, and then came a crash
    records = RejectsFile.read(failed, length=None if checkpoint is None else checkpoint.rejects_bytes)
    if checkpoint is not None and checkpoint.retried is not None:
        waiting = checkpoint.retried
    if waiting is not None:
        records = itertools.chain(records, itertools.islice(RejectsFile.read(retry), waiting, None))
    return records if checkpoint is not None else itertools.islice(records, count)


def _records(path: Path, length: int | None) -> Iterator[tuple[dict[str, Any], int]]:
    """Yields records, each with the bytes that it takes."""
    try:
        with reading_from(path):
            descriptor = open_private(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "rb") as file:
        lines = _whole_lines(file, os.fstat(descriptor).st_size if length is None else length)
        yield from ((_record(path, number, line), len(line)) for number, line in enumerate(lines, 1))


def _whole_lines(lines: Iterable[bytes], length: int) -> Iterator[bytes]:
    for line in lines:
        length -= len(line)
        if length < 0 or not line.endswith(b"\n"):
            return  # beyond the checkpoint, or just being written
        yield line


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        match json.loads(line.decode("ascii")):  # as bytes, zeros would be taken for UTF-32
            case {"source": str(), "row": int(), **_others} as record:
                return dict(record)
        reason = "tells of no row"
    except (ValueError, RecursionError) as error:
        reason = f"is no JSON: {error}"
    raise JournalDamaged(path=str(path), reason=f"line {number} {reason}")
