"""The command lines of the machine's processes, in which anybody can look for secrets."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

LOOK_SECONDS = 0.05  # seconds between two looks


def command_lines_until_the_end(process: subprocess.Popen[str]) -> str:
    """Return the command lines of all processes that run before a process ends."""
    seen = ""
    while process.returncode is None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended
                seen += path.read_bytes().decode("latin-1") + "\n"
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_SECONDS)
    return seen
