"""Python programs run in processes that a server forks, which has imported everything: for a fraction of the CPU."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tests.support.fork_server import Request

# What a program may find different from the server: nothing reads it before all is imported.
READ_LATE = ("UPSERT_CLI_", "GITHUB_", "PYTEST_", "XDG_")
READ_LATE_NAMES = {"CI", "HOME", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "TMPDIR", "TZ"}
REPLY_BYTES = 64  # bytes of a number in digits at most


class Forker:
    """The fork server of this test process."""

    def __init__(self) -> None:
        self._environment = dict(os.environ)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # Python buffers its standard streams by what they are, so these are pipes as in the programs to come.
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
                cwd=Path(__file__).parents[2],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        atexit.register(self.close)

    def can_run(self, arguments: list[str], environment: Mapping[str, str]) -> bool:
        """Check that a forked process would do the same as a started one."""
        if arguments[0] != sys.executable or "ray" in arguments:
            return False
        before = self._environment
        changed = {name for name in before.keys() | environment.keys() if before.get(name) != environment.get(name)}
        return all(name in READ_LATE_NAMES or name.startswith(READ_LATE) for name in changed)

    def run(
        self, arguments: list[str], *, folder: Path, environment: Mapping[str, str], stdin: bytes
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program and wait for its end; the parameters are as in `subprocess.run`."""
        reply, reply_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (read_in, write_in), (read_out, write_out), (read_err, write_err) = os.pipe(), os.pipe(), os.pipe()
        given = [read_in, write_out, write_err, reply_end.detach()]
        request = Request(
            arguments=arguments[1:],
            environment=dict(environment),
            folder=str(folder),
            descriptors=[0, 1, 2],
            blocked=[int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
        )
        socket.send_fds(self._control, [request.encode()], given)
        for descriptor in given:
            os.close(descriptor)
        with reply, ThreadPoolExecutor(3) as pool:
            pool.submit(_write, write_in, stdin)
            out, err = pool.submit(_read, read_out), pool.submit(_read, read_err)
            status = int(reply.recv(REPLY_BYTES))
            return subprocess.CompletedProcess(arguments, os.waitstatus_to_exitcode(status), out.result(), err.result())

    def close(self) -> None:
        """End the server."""
        self._control.close()
        self._server.communicate()


def _write(descriptor: int, data: bytes) -> None:
    with os.fdopen(descriptor, "wb", buffering=0) as stream:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[stream.write(rest) :]
        except BrokenPipeError:
            return  # the program ended without reading all of it


def _read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read()


@cache
def forker() -> Forker:
    """Return the server of this test process, started at the first use."""
    return Forker()


def run_python(
    arguments: list[str], *, folder: Path, environment: Mapping[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a program as `subprocess.run` does, forked if it is a Python program that can be."""
    if sys.platform == "linux" and forker().can_run(arguments, environment):
        return forker().run(arguments, folder=folder, environment=environment, stdin=stdin)
    return subprocess.run(arguments, cwd=folder, env=environment, input=stdin, capture_output=True, check=False)
