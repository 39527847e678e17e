"""Find the processes of other programs that have a folder's Chroma open.

An idle server, or a notebook with a client, keeps its own copy of the vector index in memory. At its next flush it
writes that copy over ours, and neither program reports an error. Such a process holds no lock, but it keeps the files
open, and that can be seen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from upsert_cli.store.chroma.database import DATABASE_NAME

WRITER_PROGRAM = "from upsert_cli.store.child import main; main()"
"""The code that our own processes run. Leases keep them apart, and their readers never write."""

INDEX_NAMES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin")
MOMENT_SECONDS = 0.25  # seconds for which a program may have a file open without using the collection, such as a backup
LOOK_SECONDS = 1.0  # seconds that a look may take; with 5,000 processes it takes 0.3 (measured)
STEP_SECONDS = 0.05  # seconds between two looks at the same processes
_PROC = Path("/proc")

_File = tuple[int, int]  # device and inode: the same for every path, link and mount that leads to the file


class Opener(NamedTuple):
    """A process that has the files of a Chroma folder open."""

    pid: int
    program: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.program})"


def find_openers(folder: Path, *, patience: float = MOMENT_SECONDS) -> list[Opener]:
    """Return the processes of other programs that have a folder's database or index files open.

    Processes of other users or containers may not be visible, and are then not found.

    Args:
        folder: Where the database is.
        patience: Seconds that a process may take to close the files; one that does is not returned.
    """
    paths = list(_files(folder))
    look: Callable[[list[Path], Collection[int] | None], list[Opener]] = _look_in_proc if _PROC.is_dir() else _ask_lsof
    found = look(paths, None) if paths else []
    until = time.monotonic() + patience
    while found and time.monotonic() < until:
        time.sleep(STEP_SECONDS)
        found = look(paths, [opener.pid for opener in found])
    return found


def _files(folder: Path) -> Iterator[Path]:
    database = folder / DATABASE_NAME
    if not database.exists():
        return
    yield database
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from (path for name in INDEX_NAMES if (path := Path(entry.path, name)).exists())


# -- Linux ------------------------------------------------------------------------------------------------------------


def _look_in_proc(paths: list[Path], pids: Collection[int] | None) -> list[Opener]:
    files = frozenset(_identities(paths))
    until = time.monotonic() + LOOK_SECONDS
    found: list[Opener] = []
    for pid in _pids() if pids is None else pids:
        if time.monotonic() >= until:
            break
        if pid == os.getpid() or not _has_open(pid, files) or _is_ours(pid):
            continue
        found.append(Opener(pid, _program(pid)))
    return found


def _identities(paths: list[Path]) -> Iterator[_File]:
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            yield status.st_dev, status.st_ino


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def _has_open(pid: int, files: frozenset[_File]) -> bool:
    with suppress(OSError), os.scandir(_PROC / str(pid) / "fd") as descriptors:  # it ended, or is of another user
        for descriptor in descriptors:
            with suppress(OSError):
                # Sockets, pipes and devices are most of what is open, and their names tell them apart.
                # Without `Path`, which would double the time of a look at thousands of processes.
                if os.readlink(descriptor.path).startswith("/"):  # noqa: PTH115
                    status = os.stat(descriptor.path)  # noqa: PTH116
                    if (status.st_dev, status.st_ino) in files:
                        return True
    return False


def _is_ours(pid: int) -> bool:
    with suppress(OSError):
        return WRITER_PROGRAM.encode() in (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    return False


def _program(pid: int) -> str:
    with suppress(OSError):
        return (_PROC / str(pid) / "comm").read_text(errors="replace").strip()
    return "a program that has ended"


# -- macOS and others -------------------------------------------------------------------------------------------------


def _ask_lsof(paths: list[Path], pids: Collection[int] | None) -> list[Opener]:
    """Return what `lsof` finds, which compares devices and inodes too; nothing where it is not installed."""
    if (program := shutil.which("lsof")) is None:
        return []
    chosen = [] if pids is None else ["-a", "-p", ",".join(map(str, pids))]
    lines = _output([program, "-nPw", "-F", "pc", *chosen, "--", *map(str, paths)])
    found = {}
    pid = 0
    for line in lines:
        if line.startswith("p"):
            pid = int(line[1:])
        elif line.startswith("c"):
            found[pid] = Opener(pid, line[1:])
    found.pop(os.getpid(), None)
    ours = {
        int(line.split(maxsplit=1)[0])
        for line in (_output(["ps", "-ww", "-o", "pid=,args=", "-p", ",".join(map(str, found))]) if found else [])
        if WRITER_PROGRAM in line
    }
    return [opener for pid, opener in found.items() if pid not in ours]


def _output(command: list[str]) -> list[str]:
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOOK_SECONDS, check=False)
        return done.stdout.splitlines()
    return []
