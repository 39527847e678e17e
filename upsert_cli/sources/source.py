"""A file that the user named -> Source: with a fingerprint, so that a restart knows that it is still the same.

What can be read only once, standard input and pipes, is spooled into a file first, so that a restart can read it again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import select
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from upsert_cli.atomic import replacing, write_all
from upsert_cli.errors import SourceChanged, SourceNotFound, SourceUnreadable, SpoolFailed
from upsert_cli.retry import RETRY_FOR
from upsert_cli.sources.addresses import is_address
from upsert_cli.sources.find import FoundFile, valid_unicode
from upsert_cli.sources.formats import FORMATS, not_loadable, why_unreadable
from upsert_cli.sources.remote import Place, RemoteFile

EDGE = 4 << 20  # bytes at each end of a file that its digest covers; what is between shows in the time of change
CHUNK = 1 << 20  # bytes read at once
UNKNOWN_SIZE = -1  # of a remote file whose server does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What tells cheaply whether a file is still the same."""

    size: int
    """Bytes."""

    mtime_ns: int
    """Nanoseconds since 1970; 0 for a spooled file, which is as old as its task."""

    digest: str
    """SHA-256 in hex, over the first and the last 4 MiB; of a spooled file, over all; of a remote one its etag."""

    @classmethod
    def of(cls, path: Place, *, whole: bool) -> Fingerprint:
        """Looks at a file; with `whole`, the digest covers all of it and the time of change is left out.

        Raises:
            OSError: The file cannot be read, or is none.
        """
        if isinstance(path, RemoteFile):
            facts = path.facts()
            size = UNKNOWN_SIZE if facts.size is None else facts.size
            return cls(size=size, mtime_ns=facts.mtime_ns, digest=facts.etag or f"changed {facts.mtime_ns}")
        # Without O_NONBLOCK, opening a pipe would wait for somebody to write.
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError("not a regular file")
            if whole or status.st_size <= 2 * EDGE:
                digest = hashlib.file_digest(file, "sha256")
            else:
                digest = hashlib.sha256(file.read(EDGE))
                file.seek(-EDGE, os.SEEK_END)
                digest.update(file.read(EDGE))
        return cls(size=status.st_size, mtime_ns=0 if whole else status.st_mtime_ns, digest=digest.hexdigest())

    def changed_from(self, old: Fingerprint) -> str | None:
        """Returns what differs, such as `size 120 -> 180 bytes`, or None."""
        if self.size != old.size:
            return f"size {old.size} -> {self.size} bytes"
        if self.digest != old.digest:
            return "same size, other content"
        # A time of change alone is no change, unless the digest leaves a gap: files are copied and touched.
        if self.size > 2 * EDGE and self.mtime_ns != old.mtime_ns:
            return "same size, another time of change"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file that a task reads, and what it was like when the task was made."""

    name: str
    """As the user would name it, in valid Unicode: `data/a.jsonl`, or `-` for standard input."""

    path: Place
    """Absolute; what is opened."""

    format: str
    """A key of `FORMATS`."""

    fingerprint: Fingerprint

    total: int | None
    """Rows."""

    spooled: bool = False
    """`path` is our own copy of what could be read only once."""

    def change(self) -> str | None:
        """Returns what is different about the file now, in one phrase, or None."""
        try:
            return self._changed()
        except OSError as error:
            return why_unreadable(error)

    def is_shorter(self) -> bool:
        """Tells whether the file has lost bytes, or is gone, since it was looked at."""
        try:
            return Fingerprint.of(self.path, whole=False).size < self.fingerprint.size
        except OSError:
            return True

    def check_unchanged(self, *, task_id: str) -> None:
        """Makes sure that a position in the file still means what it did to a task.

        Raises:
            SourceChanged: It does not, or the file is gone.
        """
        try:
            how = self._changed()
        except OSError as error:
            raise SourceChanged(name=self.name, how=why_unreadable(error), task_id=task_id, is_gone=True) from error
        if how is not None:
            raise SourceChanged(name=self.name, how=how, task_id=task_id)

    def _changed(self) -> str | None:
        return Fingerprint.of(self.path, whole=self.spooled).changed_from(self.fingerprint)

    def as_json(self) -> dict[str, Any]:
        """Returns the source as plain data in valid Unicode, for the journal."""
        value = asdict(replace(self, path=Path())) | {"path": valid_unicode(str(self.path))}
        # A path may be any bytes, a journal holds only text.
        return value if value["path"] == str(self.path) else value | {"path_bytes": os.fsencode(str(self.path)).hex()}

    @classmethod
    def from_json(cls, value: dict[str, Any], *, retry_for: float = RETRY_FOR) -> Source:
        """Read what `as_json` wrote.

        Args:
            value: The source as plain data.
            retry_for: How long to repeat a request for a remote file that fails, in seconds.
        """
        raw = value.get("path_bytes")
        path = value["path"] if raw is None else os.fsdecode(bytes.fromhex(raw))
        return cls(
            name=value["name"],
            path=RemoteFile(path, retry_for) if is_address(path) else Path(path),
            format=value["format"],
            fingerprint=Fingerprint(**value["fingerprint"]),
            total=value["total"],
            spooled=value.get("spooled", False),
        )


def fingerprint(found: FoundFile) -> Source:
    """Looks at a file that was found, and counts its rows.

    Raises:
        SourceNotFound: It is an address at which there is nothing.
        SourceUnreadable: It cannot be read, is damaged, or is a pipe that was not spooled.
    """
    try:
        return Source(
            name=found.name,
            path=found.path,
            format=found.format,
            fingerprint=Fingerprint.of(found.path, whole=found.needs_spool),
            total=_count(found),
            spooled=found.needs_spool,
        )
    except OSError as error:
        if isinstance(error, FileNotFoundError) and isinstance(found.path, RemoteFile):
            raise SourceNotFound(name=found.name) from error
        raise not_loadable(found.name, error) from error


def _count(found: FoundFile) -> int | None:
    """Counts rows, unless all of a file would have to come through the network for it."""
    if isinstance(found.path, RemoteFile) and found.format != "parquet":
        return None
    return FORMATS[found.format].count(found.path)


def spool(stream: BinaryIO, path: Path, *, name: str) -> None:
    """Copy a stream to its end into a file that only its owner can read, whole or not at all.

    Raises:
        SourceUnreadable: The stream, which the user knows by `name`, cannot be read; nothing is left behind.
        SpoolFailed: The file cannot be written, for lack of space say; nothing is left behind.
    """
    try:
        with replacing(path, durable=True) as descriptor:
            for chunk in _chunks(stream, name):
                write_all(descriptor, chunk)
    except OSError as error:
        raise SpoolFailed(path=str(path), reason=why_unreadable(error)) from error


def _chunks(stream: BinaryIO, name: str) -> Iterator[bytes]:
    while True:
        try:
            chunk: bytes | None = stream.read(CHUNK)
        except OSError as error:
            reason = "it is closed" if error.errno == errno.EBADF else why_unreadable(error)
            raise SourceUnreadable(name=name, reason=reason) from error
        if chunk is None:  # a stream that does not block has nothing yet, which is not its end
            select.select([stream], [], [])
        elif chunk:
            yield chunk
        else:
            return
