"""Python programs run in processes that a server forks, which has imported everything: for a fraction of the CPU."""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.fork_server import STREAMS, Request, blocked_signals, current_umask
from upsert_cli.store import child_process

# Variables that may differ from the server's, since no module reads them while it is imported.
READ_LATE = ("UPSERT_CLI_", "GITHUB_", "PYTEST_", "XDG_", "AWS_", "AZURE_", "PIP_", "RAY_")
READ_LATE_NAMES = {"CI", "HOME", "COLUMNS", "LINES", "TERM", "TMPDIR", "TZ"}
READ_LATE_NAMES |= {"NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "CHROMA_API_KEY", "HF_TOKEN"}
READ_LATE_NAMES |= {"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy"}
READ_LATE_NAMES |= {"STORAGE_EMULATOR_HOST"}
# Variables that a program, or all that it imports, never sees.
NEVER_READ = {"upsert_cli": "CHROMA_", "pip": "HF_"}
# Modules of a program that the server imports before it forks the first such program.
IMPORTS = {"pip": ("pip._internal.cli.main", "pip._internal.commands.download")}
CONTAINER = ("unshare", "-rpf", "--mount-proc", "--kill-child", "--")  # starts a program as PID 1
REPLY_BYTES = 64  # bytes of a number in digits at most


class Forker:
    """A fork server of this test process; all that it forks is in the namespaces, and has the rights, of the server."""

    def __init__(self, before: Sequence[str] = ()) -> None:
        """Start the server, perhaps by a program that changes these, such as `setpriv` with its options."""
        self._environment = dict(os.environ)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # Python buffers its standard streams by their kind, so these are pipes, as in most forked programs.
            self._server = subprocess.Popen(
                [*before, sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
                cwd=Path(__file__).parents[2],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        atexit.register(self.close)

    def can_run(self, arguments: list[str], environment: Mapping[str, str]) -> bool:
        """Check that a forked process would do the same as a started one."""
        if arguments[0] != sys.executable:
            return False
        unread = tuple(names for program, names in NEVER_READ.items() if program in arguments)
        return not [name for name in self.changed(environment) if not name.startswith(unread)]

    def changed(self, environment: Mapping[str, str]) -> set[str]:
        """Return the variables that differ from the server's and may have been read by its imports."""
        before = self._environment
        changed = {name for name in before.keys() | environment.keys() if before.get(name) != environment.get(name)}
        return {name for name in changed if not (name in READ_LATE_NAMES or name.startswith(READ_LATE))}

    def fork(self, request: Request, descriptors: list[int]) -> socket.socket:
        """Ask for a forked process; return the socket that reports its id, and at its end its status."""
        reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            socket.send_fds(self._control, [request.encode()], [*descriptors, theirs.fileno()])
        return reply

    def close(self) -> None:
        """End the server."""
        self._control.close()
        self._server.communicate()


@cache
def forker() -> Forker:
    """Return the usual server of this test process, started at the first use."""
    return Forker()


class ForkedProcess(subprocess.Popen[Any]):
    """A `Popen` whose process the server forks and waits for.

    It replaces the three steps of `Popen` that execute a program and wait for a child of this process.
    """

    def __init__(
        self,
        arguments: list[str],
        *,
        cwd: Path,
        env: dict[str, str],
        start_new_session: bool = False,
        controlling_terminal: bool = False,
        pass_fds: Sequence[int] = (),
        closed: Sequence[int] = (),
        contained: bool = False,
        children: int | None = None,
        server: Forker | None = None,
        **options: Any,
    ) -> None:
        """Start a Python program with the parameters of `Popen`; see `start_python` for the others."""
        self._server = server or forker()
        self._passed = list(pass_fds)
        self._request = Request(
            arguments=arguments[1:],
            environment=env,
            folder=str(cwd),
            descriptors=[*(number for number in range(STREAMS) if number not in closed), *pass_fds],
            closed=tuple(closed),
            blocked=blocked_signals(),
            umask=current_umask(),
            new_session=start_new_session or controlling_terminal,
            controlling_terminal=controlling_terminal,
            contained=contained,
            children=children,
            imports=[name for program, names in IMPORTS.items() if program in arguments for name in names],
        )
        super().__init__(arguments, **options)

    def _execute_child(self, *given: Any) -> None:
        pipes = stdin, _, _, stdout, _, stderr = given[10:16]
        given_streams = enumerate((stdin, stdout, stderr))
        streams = [number if one == -1 else one for number, one in given_streams if number not in self._request.closed]
        self._reply = self._server.fork(self._request, [*streams, *self._passed])
        self.pid = int(self._reply.recv(REPLY_BYTES))
        popen: Any = self
        popen._child_created = True
        popen._close_pipe_fds(*pipes)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if self._reply.fileno() < 0:  # collected together with this object
            return self.pid, signal.SIGKILL
        try:
            status = self._reply.recv(REPLY_BYTES, socket.MSG_DONTWAIT if wait_flags else 0)
        except BlockingIOError:
            return 0, 0
        self._reply.close()
        return self.pid, int(status) if status else signal.SIGKILL  # the server is gone, and the status with it

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        lock: Any = vars(self)["_waitpid_lock"]
        if lock.acquire(blocking=False):  # otherwise another thread waits
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    self.returncode = os.waitstatus_to_exitcode(status) if pid else None
            finally:
                lock.release()
        return self.returncode


def start_python(
    arguments: list[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    forks: bool = True,
    controlling_terminal: bool = False,
    closed: Sequence[int] = (),
    contained: bool = False,
    children: int | None = None,
    **options: Any,
) -> subprocess.Popen[Any]:
    """Start a program as `Popen` does; a Python program is forked if that makes no difference to it.

    Args:
        arguments: The program and its arguments.
        folder: The working folder.
        environment: All of it.
        forks: Whether it may be forked.
        controlling_terminal: Whether standard input is a terminal that is to control the process.
        closed: Numbers of the standard streams that are closed in the process.
        contained: Whether the program is PID 1 of a container; the process that is returned waits for it.
        children: How many Python children it starts at most, if its words do not tell.
        options: Of `Popen`.
    """
    options |= {"cwd": folder, "env": dict(environment)}
    if forks and sys.platform == "linux" and forker().can_run(arguments, environment):
        options |= {"controlling_terminal": controlling_terminal, "closed": closed, "contained": contained}
        options |= {"children": children}
        return ForkedProcess(arguments, **options)
    if contained:
        arguments = [*CONTAINER, *arguments]
    if controlling_terminal:
        options |= {"preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), "start_new_session": True}
    if closed:
        options |= {"preexec_fn": lambda: deque(map(os.close, closed))}
    return subprocess.Popen(arguments, **options)


def run_python(
    arguments: list[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    stdin: bytes = b"",
    forks: bool = True,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program as `subprocess.run` does, and wait for its end."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start_python(arguments, folder=folder, environment=environment, forks=forks, **pipes) as process:
        output, errors = process.communicate(stdin, timeout)
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)


@contextmanager
def forked_children() -> Iterator[None]:
    """Fork the children of the stores that this process opens itself, as those of forked commands are."""
    if sys.platform != "linux":
        yield
        return

    def start(arguments: list[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[Any]:
        return ForkedProcess(arguments, cwd=Path.cwd(), env=env, **options)

    kept = vars(child_process)["subprocess"]
    vars(child_process)["subprocess"] = SimpleNamespace(**(vars(subprocess) | {"Popen": start}))
    try:
        yield
    finally:
        vars(child_process)["subprocess"] = kept


def run_forked(
    server: Forker, arguments: list[str], *, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a Python program by a server with its own namespaces or rights, and wait for its end."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with ForkedProcess(arguments, server=server, cwd=folder, env=environment, text=True, **pipes) as process:
        output, errors = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, output, errors)
