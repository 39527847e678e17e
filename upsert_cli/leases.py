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
    """The boot of the host that `pid` belongs to, if the system tells."""

    clean: bool = False
    """Whether the holder finished its work, and only has to release the lease."""

    parent: int = 0
    """The process that the holder works for; 0 if it was not recorded."""

    owed: dict[str, int] = field(default_factory=dict)
    """Settings that the next holder restores if this one dies before it does: collection -> its own sync threshold."""

    @classmethod
    def this_process(cls, task_id: str | None = None, *, clean: bool = False, parent: int | None = None) -> Holder:
        """Return the facts of the calling process; it may have outlived the `parent` that started it."""
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
        """Check whether the process that the holder worked for has died; False if that cannot be seen."""
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


# A holder that has not yet written its facts, or whose facts were torn by a power failure.
UNKNOWN = Holder(pid=0, host="", since="")


@dataclass(eq=False)
class LeaseHeld(Exception):
    """Raised when another process has the lease."""

    holder: Holder

    def __str__(self) -> str:
        return f"held by {self.holder}"


class Lease:
    """A lock file that this process holds; freed by `release`, or by the kernel however the process ends.

    Never fork while holding one: the child would keep it. (A program that is started does not: O_CLOEXEC.)
    """

    def __init__(self, descriptor: int, before: Holder | None) -> None:
        """Take over a descriptor that has the lock; use `take`."""
        self._descriptor: int | None = descriptor
        self.before = before
        """The previous holder; None if there was none."""

        self.holder = UNKNOWN
        """The facts in the file, as this process wrote them last."""

    @classmethod
    def take(cls, path: Path, holder: Holder, *, timeout: float = 0.0) -> Self:
        """Take the lease and record its holder, with the settings that earlier holders owe.

        Args:
            path: The lock file; created as a private file if it is missing.
            holder: The facts to write into it.
            timeout: Seconds to wait for a holder to release it.

        Raises:
            LeaseHeld: Another process still has it.
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
        """Return the holder of the lease, or None; neither take nor create it."""
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
        """Replace the facts about the holder; they survive a power failure from then on."""
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
        """Release the lease; the file stays, since others may be about to lock it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _parent_of(pid: int) -> int | None:
    """Return the parent of a process, which is another one as soon as its own parent has died; None if it is gone."""
    if _PROC.is_dir():
        with suppress(OSError, ValueError):
            # The name of the program is in brackets and may hold anything; state and parent follow it.
            return int((_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()[1])
        return None
    import subprocess

    with suppress(OSError, ValueError):
        return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=False).stdout)  # noqa: S607
    return None


def _open_locked(path: Path) -> int | None:
    """Return a descriptor that has the lock of the file now at `path`, or None if another process has it."""
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
    # The holder of a lock may remove its file; a lock on a file without a name keeps nobody out.
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    return False


def _read(path: Path) -> Holder | None:
    with suppress(OSError):
        return _facts(read_whole(path))
    return None


def _facts(content: bytes) -> Holder | None:
    """Read the facts that `write` wrote, and ignore keys of other versions; `UNKNOWN` if they make no sense."""
    if not content:
        return None
    try:
        value = json.loads(content)
        return Holder(**{known.name: value[known.name] for known in fields(Holder) if known.name in value})
    except (ValueError, TypeError):
        return UNKNOWN
