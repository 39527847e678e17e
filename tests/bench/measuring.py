"""The cost of a command: CPU seconds of its whole tree of processes, and the peak memory of the tree.

CPU and not wall time, since that is what other programs on the machine change least. Memory is sampled from /proc: of
each process the kernel's own high-water mark, and of all together the proportional set size, which counts a page that
they share once.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.05  # seconds between two looks at the memory, or more if they are expensive
PAUSE = 10  # times as long as the CPU of a look, which the kernel needs some 10 ms for
# An installed program is compiled; a checkout is only once Python may keep what it compiled.
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
MEGABYTE = 1_000_000  # bytes; the scorecard's figures are decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of one command."""

    cpu: float
    """User and system seconds of the process and of all that it waited for."""

    largest: float
    """MB of the largest process at its peak; 0.0 where there is no /proc."""

    together: float
    """MB of all processes at their common peak; 0.0 where memory was not sampled."""

    code: int
    """Exit code; negative for a signal."""

    out: str
    err: str


class CommandFailed(Exception):
    """Raised when a measured command ends with another exit code than expected."""


def python(*arguments: str) -> list[str]:
    """Return the command line of this Python."""
    return [sys.executable, *arguments]


def cost_of(
    command: Sequence[str],
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    memory: bool = False,
    expect: int = 0,
) -> Cost:
    """Run a command to its end and return its cost.

    Args:
        command: With its arguments.
        env: What differs from this process's environment.
        cwd: Its working folder.
        memory: Whether to sample its memory, which takes some CPU of others.
        expect: Its exit code.

    Raises:
        CommandFailed: The exit code is another one.
    """
    with subprocess.Popen(
        command,
        env=os.environ | COMPILED | (env or {}),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        sampler = _Sampler(process.pid) if memory else None
        texts = _drained(process)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if sampler is not None:
            sampler.stop()
        out, err = texts()
    if process.returncode != expect:
        raise CommandFailed(f"{' '.join(command)}\nexit code {process.returncode}\n{out[-2000:]}\n{err[-2000:]}")
    return Cost(
        cpu=usage.ru_utime + usage.ru_stime,
        largest=sampler.largest / MEGABYTE if sampler is not None else 0.0,
        together=sampler.together / MEGABYTE if sampler is not None else 0.0,
        code=process.returncode,
        out=out,
        err=err,
    )


def interleaved(times: int, *runs: Callable[[], float]) -> list[float]:
    """Make each measurement several times, in turns, and return the median of each: a busy minute hits all alike."""
    found = [[run() for run in runs] for _ in range(times)]
    return [statistics.median(column) for column in zip(*found, strict=True)]


def _drained(process: subprocess.Popen[str]) -> Callable[[], tuple[str, str]]:
    """Read both pipes in threads, so that a command with much output never blocks."""
    found = {"out": "", "err": ""}

    def drain(name: str) -> None:
        stream = process.stdout if name == "out" else process.stderr
        found[name] = stream.read() if stream is not None else ""

    threads = [threading.Thread(target=drain, args=(name,), daemon=True) for name in found]
    for thread in threads:
        thread.start()

    def texts() -> tuple[str, str]:
        for thread in threads:
            thread.join()
        return found["out"], found["err"]

    return texts


class _Sampler:
    """Looks at the memory of a process and its descendants until it is stopped."""

    def __init__(self, pid: int) -> None:
        self.largest = 0
        """Bytes."""
        self.together = 0
        self._pid = pid
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()

    def _watch(self) -> None:
        pause = SAMPLE_SECONDS
        while not self._ending.wait(pause):
            began = time.thread_time()
            tree = list(_tree(self._pid))
            self.largest = max([self.largest, *(_kilobytes(pid, "status", "VmHWM") for pid in tree)])
            self.together = max(self.together, sum(_kilobytes(pid, "smaps_rollup", "Pss") for pid in tree))
            pause = max(SAMPLE_SECONDS, PAUSE * (time.thread_time() - began))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in path.read_text().split():
                yield from _tree(int(child))


def _kilobytes(pid: int, file: str, name: str) -> int:
    """Return a figure of /proc in bytes; 0 for a process that is gone."""
    with suppress(OSError):
        if found := re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE):
            return int(found[1]) * 1024
    return 0
