"""A terminal to type commands into, with its own folder, journal and environment."""

from __future__ import annotations

import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.forked import run_python, start_python
from tests.support.waiting import wait_until

SAMPLES = Path(__file__).parents[2] / "sample_data"


@dataclass
class Terminal:
    """A folder, a journal and an environment to type commands in."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)
    forks: bool = True
    """Whether commands may be forked by a process that has imported everything; they look the same in all but /proc."""

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"UPSERT_CLI_JOURNAL": str(self.journal)} | self.env

    def arguments(self, line: str) -> list[str]:
        words = shlex.split(line)
        return [sys.executable, "-m", "upsert_cli", *words[1:]] if words[0] == "upsert-cli" else words

    def type(self, line: str, *, expect: int | None = 0, stdin: str | bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run a command line as a user would, and check its exit code."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        raw = run_python(
            self.arguments(line), folder=self.folder, environment=self.environment, stdin=given, forks=self.forks
        )
        done = subprocess.CompletedProcess(raw.args, raw.returncode, raw.stdout.decode(), raw.stderr.decode())
        if expect is not None:
            assert done.returncode == expect, f"{line}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, line: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command in its own process group without waiting for it."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return start_python(
            self.arguments(line),
            folder=self.folder,
            environment=self.environment,
            forks=self.forks,
            text=True,
            start_new_session=True,
            **(streams | options),
        )

    def info(self, task_id: str) -> dict[str, Any]:
        """Return a task as `info --json` prints it."""
        value: dict[str, Any] = json.loads(self.type(f"upsert-cli info {task_id} --json").stdout)
        return value

    def wait_for_rows(self, task_id: str) -> None:
        """Wait for a task's next checkpoint; by its file, since a short load may end before `info` is asked twice."""
        path = self.journal / "active" / f"{task_id}.progress"
        before = path.stat().st_mtime_ns if path.exists() else None

        def is_next() -> bool:
            with suppress(FileNotFoundError):
                return path.stat().st_mtime_ns != before
            return False

        wait_until(is_next)

    def has_checkpoint(self, task_id: str) -> bool:
        """Check whether a running task has reached its first checkpoint."""
        return (self.journal / "active" / f"{task_id}.progress").exists()

    def wait_for_line(self, process: subprocess.Popen[str], text: str) -> None:
        """Wait until a command has written a line with a text to standard error, and drop the lines up to it."""
        assert process.stderr is not None
        assert any(text in line for line in process.stderr), f"it ended without: {text}"

    def halt_when(self, process: subprocess.Popen[str], task_id: str, come: Callable[[], bool] = lambda: True) -> None:
        """Halt a load at a checkpoint where a condition holds, so that nothing happens during the test's next steps.

        Args:
            process: Of `start`; `go_on` lets it go on.
            task_id: What it loads.
            come: Looks, while it is halted.
        """
        while process.poll() is None:
            self.wait_for_rows(task_id)
            os.killpg(process.pid, signal.SIGSTOP)
            if come():
                return
            self.go_on(process)
        raise AssertionError(f"it ended before that: {process.communicate()}")

    def go_on(self, process: subprocess.Popen[str]) -> None:
        """Let a halted load go on."""
        os.killpg(process.pid, signal.SIGCONT)

    def statuses(self) -> dict[str, str]:
        """Return the status of each task that `list` shows, by id."""
        return {task["id"]: task["status"] for task in json.loads(self.type("upsert-cli list --json").stdout)}

    def only_task(self) -> dict[str, Any]:
        """Return the one task of the journal."""
        tasks = json.loads(self.type("upsert-cli list --json").stdout)
        assert len(tasks) == 1
        value: dict[str, Any] = tasks[0]
        return value

    def start_drawn(self, line: str, *, columns: int) -> tuple[subprocess.Popen[str], int]:
        """Start a command on a pseudo-terminal, and return it with the descriptor of all that it draws."""
        ours, theirs = pty.openpty()
        process = start_python(
            self.arguments(line),
            folder=self.folder,
            environment=self.environment | {"TERM": "xterm-256color", "COLUMNS": str(columns)},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        return process, ours

    def write(self, name: str, items: Iterable[dict[str, Any]]) -> Path:
        """Write items as JSONL."""
        path = self.folder / name
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
        return path

    def records(
        self, collection: str = "default", *, vectors: bool = False, folder: str = "chroma"
    ) -> dict[str, dict[str, Any]]:
        """Read a collection back with chromadb alone, in another process: id -> document and metadata."""
        program = [sys.executable, "-c", _READ_BACK, str(self.folder / folder), collection, "1" if vectors else ""]
        done = run_python(program, folder=self.folder, environment=self.environment)
        assert done.returncode == 0, done.stderr.decode()
        value: dict[str, dict[str, Any]] = json.loads(done.stdout)
        for record in value.values() if vectors else ():
            record["vector"] = np.frombuffer(bytes.fromhex(record["vector"]), dtype=np.float32).tolist()
        return value


# Vectors are printed as their bytes: to print and to parse a hundred thousand numbers takes longer than a load.
_READ_BACK = """
import json, sys
import chromadb, numpy
collection = chromadb.PersistentClient(sys.argv[1]).get_collection(sys.argv[2])
include = ["documents", "metadatas"] + (["embeddings"] if sys.argv[3] else [])
found = {}
for offset in range(0, collection.count(), 1000):
    part = collection.get(limit=1000, offset=offset, include=include)
    for place, identifier in enumerate(part["ids"]):
        assert identifier not in found
        found[identifier] = {"document": part["documents"][place], "metadata": part["metadatas"][place]}
        if sys.argv[3]:
            found[identifier]["vector"] = part["embeddings"][place].astype(numpy.float32).tobytes().hex()
print(json.dumps(found))
"""


def read_drawn(descriptor: int) -> bytes:
    """Return everything drawn on a pseudo-terminal until its other end is closed."""
    drawn = b""
    while True:
        try:
            part = os.read(descriptor, 65_536)
        except OSError:  # Linux reports the end of a terminal as an error
            return drawn
        if not part:
            return drawn
        drawn += part
