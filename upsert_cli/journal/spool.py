"""Copies of streams such as standard input, so that a restart can read them again.

Streams are read before there is a task, into a private folder, which becomes the task's spool when the task is created.
"""

from __future__ import annotations

import errno
import io
import os
import select
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from upsert_cli.atomic import make_folder, replacing, write_all
from upsert_cli.errors import SourceUnreadable, UpsertCliError, reason_of
from upsert_cli.journal.files import writing_to
from upsert_cli.journal.layout import Layout
from upsert_cli.owned_folders import Leftover, own, remove_stale, unowned
from upsert_cli.sources.formats import STDIN

CHUNK = 1 << 20  # bytes read at once
PREFIX = ".incoming-"  # no task id begins with a dot


class Incoming:
    """A folder for copies of streams that are read before there is a task, for which it may be renamed."""

    def __init__(self, layout: Layout) -> None:
        """Make no folder yet."""
        self._layout = layout
        self._ownership: int | None = None
        self.path: Path | None = None
        """The folder; None before the first stream."""

    def folder(self) -> Path:
        """Return the folder, which is made at the first call; this process owns it until `close`."""
        if self.path is None:
            spool = self._layout.spool
            with self._layout.allocation(), writing_to(spool):
                remove_stale(spool.glob(f"{PREFIX}*"))
                path = _new_incoming(spool)
                self._ownership = own(path)
            self.path = path
        return self.path

    def close(self) -> None:
        """Give the folder up, so that others may remove it unless it belongs to a task by now."""
        if self._ownership is not None:
            os.close(self._ownership)
            self._ownership = None

    def __enter__(self) -> Incoming:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the folder, unless it was renamed."""
        if self.path is not None:
            shutil.rmtree(self.path, ignore_errors=True)
        self.close()


@contextmanager
def moved_to_spool(incoming: Path, spool: Path, *, is_created: Callable[[], bool]) -> Iterator[None]:
    """Rename an incoming folder to the spool of the task that the block creates, and back if the block fails.

    Only the holder of the allocation lock may call this.
    """
    with writing_to(spool):
        if spool.exists():  # left by a process that was killed before it created its task
            spool.rename(_new_incoming(spool.parent))
        incoming.rename(spool)
    try:
        yield
    except BaseException:
        if not is_created():
            with suppress(OSError):  # the first error is the one that counts
                spool.rename(incoming)
        raise


def spool(
    stream: BinaryIO,
    path: Path,
    *,
    name: str,
    most: int | None = None,
    end_in: Callable[[Iterator[bytes]], int | None] | None = None,
) -> None:
    """Copy a stream into a private file, whole or not at all.

    Args:
        stream: Read to its end, unless a limit comes first.
        path: The file.
        name: The stream's name in messages.
        most: The limit in bytes, if any.
        end_in: Takes as many pieces as it needs, and returns the number of bytes to keep, or None for all of these
            pieces; the rest of the stream is not read.

    Raises:
        SourceUnreadable: The stream cannot be read.
        UpsertCliError: The file cannot be written, for example for lack of space.
    """
    try:
        with replacing(path, durable=True) as descriptor:
            pieces = _copied(_chunks(stream, name, waits=end_in is None), descriptor, most=most)
            if end_in is None:
                for _ in pieces:
                    pass
            elif (end := end_in(pieces)) is not None:
                os.truncate(descriptor, min(end, os.fstat(descriptor).st_size))
    except OSError as error:
        raise UpsertCliError(
            message=f"the input cannot be kept in {path} ({reason_of(error)}); give it as a file, or choose "
            f"another --journal"
        ) from error


def spool_leftovers(spool: Path, *, is_kept: Callable[[str], bool]) -> list[Leftover]:
    """Return the spools of processes that were killed before they created a task; `is_kept` takes a task's id."""
    if not spool.is_dir():
        return []
    folders = sorted(spool.iterdir())
    return [*unowned(folder for folder in folders if folder.name.startswith(PREFIX) or not is_kept(folder.name))]


def _new_incoming(spool: Path) -> Path:
    folder = spool / f"{PREFIX}{os.urandom(8).hex()}"
    make_folder(folder)
    return folder


def _copied(pieces: Iterator[bytes], descriptor: int, *, most: int | None) -> Iterator[bytes]:
    """Write pieces to a file, up to a number of bytes, and yield each of them."""
    for piece in pieces:
        write_all(descriptor, piece if most is None else piece[:most])
        yield piece
        if most is not None and (most := most - len(piece)) <= 0:
            return


def _chunks(stream: BinaryIO, name: str, *, waits: bool = True) -> Iterator[bytes]:
    """Yield the content of a stream; unless it `waits`, each chunk has only the bytes that have arrived."""
    read = stream.read1 if isinstance(stream, io.BufferedReader) and not waits else stream.read
    while True:
        try:
            chunk: bytes | None = read(CHUNK)
        except OSError as error:
            reason = "it is closed" if error.errno == errno.EBADF else reason_of(error)
            remedy = "pipe data into it, or name a file" if name == STDIN else None
            raise SourceUnreadable(name=name, reason=reason, remedy=remedy) from error
        if chunk is None:  # a non-blocking stream has no data yet, which is not its end
            select.select([stream], [], [])
        elif chunk:
            yield chunk
        else:
            return
