"""The list of the records that a task is to delete in its end: one a line, whole or not at all."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from upsert_cli.atomic import open_private, replacing, write_all
from upsert_cli.errors import JournalDamaged
from upsert_cli.journal.state_files import reading_from, writing_to


class OrphanEntry(NamedTuple):
    """A record on the list."""

    id: str

    hash: str
    """Of the record when it was listed; it is deleted only if it is still that."""


class OrphanList:
    """A list in the making."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Takes over a descriptor; use `making`."""
        self._path = path
        self._descriptor = descriptor

    def add(self, records: Sequence[tuple[str, str]]) -> None:
        """Adds records, each as id and hash."""
        with writing_to(self._path):
            write_all(self._descriptor, "".join(f"{json.dumps(record)}\n" for record in records).encode("ascii"))

    @classmethod
    @contextmanager
    def making(cls, path: Path) -> Iterator[OrphanList]:
        """Yields a list that takes its place, durably, when it is left without an error, and vanishes else."""
        with ExitStack() as stack:  # so that only errors of the file, not those of the block, are the journal's
            with writing_to(path):
                descriptor = stack.enter_context(replacing(path, durable=True))
            yield cls(path, descriptor)
            with writing_to(path):
                stack.close()

    @staticmethod
    def read(path: Path, *, start: int) -> Iterator[OrphanEntry]:
        """Yields the records of a list but for the first `start`.

        Raises:
            JournalDamaged: A line makes no sense.
        """
        with reading_from(path):
            descriptor = open_private(path, os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            for number, line in itertools.islice(enumerate(file, 1), start, None):
                yield _listed(path, number, line)


def _listed(path: Path, number: int, line: bytes) -> OrphanEntry:
    reason = "tells of no record"
    try:
        match json.loads(line):
            case [str(identifier), str(hashed)]:
                return OrphanEntry(identifier, hashed)
    except (ValueError, RecursionError) as error:
        reason = f"is no JSON: {error}"
    raise JournalDamaged(path=str(path), reason=f"line {number} {reason}")
