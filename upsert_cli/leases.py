"""Leases: lock files that a process holds for its lifetime, with facts about the holder for others to read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Self

from upsert_cli.atomic import open_private, read_whole
from upsert_cli.locks import try_lock

POLL_SECONDS = 0.02  # seconds between two tries for a lease that is taken
PEEK_SECONDS = 0.05  # seconds for which a peek, which takes microseconds, may make a free lock look taken
FACTS_BYTES = 1024  # bytes; always one size, so that rewriting the facts needs no space on a full disk
_PROC = Path("/proc")
_BOOT_ID = _PROC / "sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The process that holds a lease; for messages only, since only the lock tells whether the holder lives."""

    pid: int
    host: str
    since: str
    """When the lease was taken, such as `2026-11-23T21:03:12Z`."""

    task_id: str | None = None
    boot_id: str = ""
    """The boot of the host in which `pid` is valid; empty if not known."""

    clean: bool = False
    """Whether the holder finished its work and is about to release the lease."""

    parent: int = 0
    """The process that the holder works for; 0 if not known."""

    owed: dict[str, int] = field(default_factory=dict)
    """The settings that the next holder restores if this one dies: by collection, its own sync threshold."""

    @classmethod
    def this_process(cls, task_id: str | None = None, *, clean: bool = False, parent: int | None = None) -> Holder:
        """Return the facts of the calling process, which may have outlived the `parent` that started it."""
        import socket  # 7 ms, only for processes that take a lease

        boot_id = ""
        with suppress(OSError):
            boot_id = _BOOT_ID.read_text("ascii").strip()
        return cls(
            pid=os.getpid(),
            host=socket.gethostname(),
            since=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            task_id=task_id,
            boot_id=boot_id,
            clean=clean,
            parent=os.getppid() if parent is None else parent,
        )

    def is_orphan(self) -> bool:
        """Check whether the process that the holder worked for has died; False if that is not known."""
        this = Holder.this_process()
        if not self.parent or (self.host, self.boot_id) != (this.host, this.boot_id):
            return False
        parent = _parent_of(self.pid)
        return parent is not None and parent != self.parent

    def __str__(self) -> str:
        if not self.pid:
            return "another process"
        task = f" (task {self.task_id})" if self.task_id else ""
        return f"pid {self.pid} on {self.host}{task} since {self.since}"


UNKNOWN = Holder(pid=0, host="", since="")
"""A holder that has not written its facts yet, or whose facts a power failure tore."""


@dataclass(eq=False)
class LeaseHeld(Exception):
    """Raised when another process has the lease."""

    holder: Holder

    def __str__(self) -> str:
        return f"held by {self.holder}"


class Lease:
    """A lock file that this process holds until `release` or, however the process ends, until its end.

    A process with a lease must not fork, since the child would keep the lease. A started program does not inherit it.
    """

    def __init__(self, descriptor: int, before: Holder | None) -> None:
        """Take over a descriptor that has the lock; use `take`."""
        self._descriptor: int | None = descriptor
        self.before = before
        """The previous holder, or None."""

        self.holder = UNKNOWN
        """The facts that this process wrote last."""

    @classmethod
    def take(cls, path: Path, holder: Holder, *, timeout: float = 0.0) -> Self:
        """Take the lease and record its holder, with the settings that earlier holders owe.

        Args:
            path: The lock file, which is created if it is missing.
            holder: The facts to write into the file.
            timeout: How long to wait for another holder, in seconds.

        Raises:
            LeaseHeld: Another process still holds the lease.
            LocksUnsupported: The system has no flock.
            OSError: The file cannot be opened or written.
        """
        until = time.monotonic() + max(timeout, PEEK_SECONDS)
        while (descriptor := _open_locked(path)) is None:
            if time.monotonic() >= until:
                raise LeaseHeld(_read(path) or UNKNOWN)
            time.sleep(POLL_SECONDS)
        try:
            lease = cls(descriptor, _facts(os.pread(descriptor, 4 * FACTS_BYTES, 0)))
            lease.write(holder if lease.before is None else replace(holder, owed=lease.before.owed))
        except BaseException:
            os.close(descriptor)
            raise
        return lease

    @staticmethod
    def peek(path: Path) -> Holder | None:
        """Return the holder of a lease, or None, without taking the lease."""
        try:
            descriptor = open_private(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            # Shared, so that two processes that peek at the same time do not take each other for a holder.
            if try_lock(descriptor, path, shared=True):
                return None
            return _facts(os.pread(descriptor, 4 * FACTS_BYTES, 0)) or UNKNOWN
        finally:
            os.close(descriptor)

    def write(self, holder: Holder) -> None:
        """Replace the facts about the holder, which then survive a power failure."""
        if self._descriptor is None:
            raise ValueError("the lease was released")
        content = json.dumps(asdict(holder)).encode().ljust(FACTS_BYTES - 1) + b"\n"
        os.pwrite(self._descriptor, content, 0)
        os.ftruncate(self._descriptor, len(content))
        os.fsync(self._descriptor)
        self.holder = holder

    @property
    def was_clean(self) -> bool:
        """Whether the previous holder, if there was one, finished its work."""
        return self.before is None or self.before.clean

    def owe(self, settings: Mapping[str, int | None]) -> None:
        """Record settings that the next holder restores if this one dies first; None for a restored setting."""
        both = {**self.holder.owed, **settings}
        owed = {name: setting for name, setting in both.items() if setting is not None}
        if owed != self.holder.owed:
            self.write(replace(self.holder, owed=owed))

    def release(self) -> None:
        """Release the lease; the file stays, since another process may be about to lock it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _parent_of(pid: int) -> int | None:
    """Return the parent of a process, which changes when its parent dies; None if the process is gone."""
    if _PROC.is_dir():
        with suppress(OSError, ValueError):
            # The program's name stands in brackets and may hold any character; the state and the parent follow.
            return int((_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[1])
        return None
    import subprocess

    with suppress(OSError, ValueError):
        return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=False).stdout)  # noqa: S607
    return None


def _open_locked(path: Path) -> int | None:
    """Return a descriptor with the lock of the file that is now at `path`, or None if another process has the lock."""
    descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        if try_lock(descriptor, path) and _is_at(descriptor, path):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _is_at(descriptor: int, path: Path) -> bool:
    # The holder of a lock may remove its file, and the lock of a removed file keeps nobody out.
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    return False


def _read(path: Path) -> Holder | None:
    with suppress(OSError):
        return _facts(read_whole(path))
    return None


def _facts(content: bytes) -> Holder | None:
    """Return the facts in a lock file, None for an empty file, and `UNKNOWN` for a torn one."""
    if not content:
        return None
    try:
        value = json.loads(content)  # a newer version may have written further keys
        return Holder(**{known.name: value[known.name] for known in fields(Holder) if known.name in value})
    except (ValueError, TypeError):
        return UNKNOWN
