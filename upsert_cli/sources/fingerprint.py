"""A fingerprint of a file or a collection, by which a restart recognises a source that has changed."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from upsert_cli.sources.remote import FilePath, RemoteFile

EDGE = 4 << 20  # bytes at each end of a file that its digest covers; a change in between shows in the mtime
UNKNOWN_SIZE = -1  # of a remote file whose server does not state its size
OF_COLLECTION = " of a collection"  # ends the digest of a collection's state


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The state of a file or a collection, as far as it can be read cheaply."""

    size: int
    """Bytes; for a collection, records."""

    mtime_ns: int
    """Nanoseconds since 1970; 0 for a spooled file, whose age means nothing."""

    digest: str
    """SHA-256 in hex of the first and the last 4 MiB of a file, or of all of a spooled file; the etag of a remote file;
    for a collection, the digest of its state, followed by `OF_COLLECTION`."""

    @classmethod
    def of_file(cls, path: FilePath, *, whole: bool) -> Fingerprint:
        """Return the fingerprint of a file; with `whole`, the digest covers all of it and the mtime is left out.

        Raises:
            OSError: The path cannot be read or is not a regular file.
        """
        if isinstance(path, RemoteFile):
            info = path.info()
            size = UNKNOWN_SIZE if info.size is None else info.size
            return cls(size=size, mtime_ns=info.mtime_ns, digest=info.etag or f"changed {info.mtime_ns}")
        with _opened(path) as file:
            status = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest() if whole else _digest(file, status.st_size)
        return cls(size=status.st_size, mtime_ns=0 if whole else status.st_mtime_ns, digest=digest)

    def changed_from(self, old: Fingerprint) -> str | None:
        """Return the difference, such as `size 120 -> 180 bytes`, or None."""
        if self.size != old.size:
            if UNKNOWN_SIZE in (self.size, old.size):
                return "its server does not always say its size"
            if self.digest.endswith(OF_COLLECTION):
                return f"{old.size:,} -> {self.size:,} records"
            return f"size {old.size} -> {self.size} bytes"
        if self.digest != old.digest:
            return "same size, other content"
        # Files are copied and touched, so another mtime means a change only if the digest does not cover the file.
        if self.size > 2 * EDGE and self.mtime_ns != old.mtime_ns:
            return "same size, another time of change"
        return None

    def is_beginning_of(self, path: Path) -> bool:
        """Check whether a file still begins with the bytes of this fingerprint; raise OSError if it cannot be read."""
        with _opened(path) as file:
            return os.fstat(file.fileno()).st_size >= self.size and _digest(file, self.size) == self.digest


def _opened(path: Path) -> BufferedReader:
    """Open a regular file; raise OSError for anything else."""
    # Without O_NONBLOCK, opening a pipe would wait for a writer.
    file = os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise OSError("not a regular file")


def _digest(file: BufferedReader, size: int) -> str:
    """Return the digest of the first `size` bytes of a file: of all of them, or of both ends if they are many."""
    if size <= 2 * EDGE:
        return hashlib.sha256(file.read(size)).hexdigest()
    digest = hashlib.sha256(file.read(EDGE))
    file.seek(size - EDGE)
    digest.update(file.read(EDGE))
    return digest.hexdigest()
