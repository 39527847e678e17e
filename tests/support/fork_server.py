"""A process that has imported everything and forks the commands that tests type; run by `tests.support.forked`.

Each command is a process of its own, with the working folder, environment and streams that it is given, and runs the
program's real entry point. Only the imports are shared: they are most of the CPU of a short command, and so are those
of the store's child. For the latter, each command forks spare processes while it has only one thread; they become the
first Python children that the command starts, and may have spares of their own. Further children are started as usual.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import upsert_cli
from upsert_cli.packages import configure_libraries

# Modules that commands import inside functions.
HEAVY = (
    "chromadb",
    "chromadb.api.client",
    "chromadb.api.fastapi",
    "chromadb.api.rust",
    "chromadb.utils.embedding_functions",
    "fastembed",
    "jinja2",
    "pyarrow.compute",
    "pyarrow.csv",
    "pyarrow.dataset",
    "pyarrow.fs",
    "pyarrow.parquet",
    "rich.console",
    "rich.live",
    "rich.progress",
    "rich.table",
    "tinydb",
)
MESSAGE_BYTES = 1 << 20  # bytes of a request at most, mostly the environment
STREAMS = 3  # standard input, output and error
PROGRAMS = ("-m", "-c", "-P")  # the interpreter's first argument, where a forked process can run the program
FIRST_FREE = 64  # above all descriptors that a process of the server has open
BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Of Linux's headers sched.h, mount.h and prctl.h.
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x0002_0000, 0x1000_0000, 0x2000_0000
MS_REC, MS_PRIVATE = 0x4000, 0x4_0000
PR_SET_PDEATHSIG = 1

WITHOUT_CHILDREN = {
    "--help",
    "--version",
    "cancel",
    "completion",
    "config",
    "help",
    "info",
    "journal",
    "list",
    "preview",
    "prune",
    "report",
}
# Words of commands, and how many Python children these start at most; the first word that a command has counts.
CHILDREN = {
    "--help": 0,
    "--enqueue": 0,
    "--repair": 5,
    "--verify": 2,
    "verify": 2,
    "--writers": 5,
    "work": 5,
    "tests.bench": 10,
    "tests.bench.gpu": 5,
}

ERRORS = {name: getattr(sys, name).errors for name in ("stdin", "stdout", "stderr")}
"""The error handler of each standard stream, kept for processes whose streams are closed."""

Spare = tuple[int, socket.socket]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A Python program to run; the descriptors to run it with come along."""

    arguments: list[str]
    """Of the interpreter, such as `["-m", "upsert_cli", "list"]`."""

    environment: dict[str, str]

    folder: str
    """The working folder."""

    descriptors: list[int]
    """The number that each descriptor gets in the new process, in the order in which they are sent."""

    blocked: list[int]
    """The signals that are blocked in the new process."""

    umask: int

    closed: tuple[int, ...] = ()
    """The standard streams that are closed in the new process."""

    new_session: bool = False
    controlling_terminal: bool = False
    """Whether standard input is a terminal that is to control the new session."""

    contained: bool = False
    """Whether the program is PID 1 of a container, for which the new process waits."""

    children: int | None = None
    """How many Python children the program starts at most; None: what its words tell."""

    imports: Sequence[str] = ()
    """Modules that the program imports, and that the server imports before it forks the first such program."""

    def encode(self) -> bytes:
        """Return the request as one message."""
        return json.dumps(asdict(self)).encode()


class Server:
    """Forks a process for each request, and reports how it ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._running: dict[int, socket.socket] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def serve(self) -> Request | None:
        """Serve until the control socket is closed; in each forked process, return the program to run."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # as in an interpreter that is starting
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        while True:
            ready, _, _ = select.select([self._control.fileno(), self._wake_read], [], [])
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)
                self._report_ends()
            if self._control.fileno() in ready:
                message, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 16)
                if not message:
                    return None
                request = Request(**json.loads(message))
                reply = socket.socket(fileno=descriptors.pop())
                import_all(request.imports)
                if not (pid := os.fork()):
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    if request.new_session:
                        os.setsid()
                    reply.send(str(os.getpid()).encode())
                    take_over(request, descriptors)
                    return request
                self._running[pid] = reply
                for descriptor in descriptors:
                    os.close(descriptor)

    def _report_ends(self) -> None:
        for pid, reply in list(self._running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._running[pid]
                with reply, suppress(OSError):
                    reply.send(str(status).encode())


def take_over(request: Request, descriptors: list[int]) -> None:
    """Give this forked process the descriptors, folder and environment that it would have been started with."""
    above = max([FIRST_FREE, *request.descriptors]) + 1
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, above) for descriptor in descriptors]
    os.closerange(STREAMS, above)
    for descriptor, number in zip(moved, request.descriptors, strict=True):
        os.dup2(descriptor, number)
    os.closerange(above, max([above, *moved]) + 1)
    for number in request.closed:
        os.close(number)
    if request.controlling_terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(request.folder)
    os.umask(request.umask)
    os.environ.clear()
    os.environ.update(request.environment)
    time.tzset()
    tempfile.tempdir = None
    _open_streams(request.closed)
    if request.contained:
        become_first()
    signal.pthread_sigmask(signal.SIG_SETMASK, request.blocked)


def become_first() -> None:
    """Go on as PID 1 of new namespaces, as a program of `unshare -rpf --mount-proc --kill-child` does."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(function: str, *arguments: int | bytes | None) -> None:
        if getattr(libc, function)(*arguments):
            raise OSError(ctypes.get_errno(), f"{function} failed")

    user, group = os.getuid(), os.getgid()
    call("unshare", CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS)
    for name, value in {"setgroups": "deny", "uid_map": f"0 {user} 1", "gid_map": f"0 {group} 1"}.items():
        Path(f"/proc/self/{name}").write_text(value)
    if pid := os.fork():
        for number in (signal.SIGINT, signal.SIGTERM):  # they are meant for the program
            signal.signal(number, signal.SIG_IGN)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(code if code >= 0 else 128 - code)
    call("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL))
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    call("mount", b"proc", b"/proc", b"proc", 0, None)


def _open_streams(closed: tuple[int, ...]) -> None:
    """Open the standard streams as the interpreter does: how they are buffered depends on their kind."""
    for number, (name, errors) in enumerate(ERRORS.items()):
        mode, newline = ("w", "\n") if number else ("r", None)
        stream = None
        if number not in closed:
            stream = open(number, mode, errors=errors, newline=newline, closefd=False)  # noqa: SIM115  # open for good
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    if sys.stderr is not None:
        sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def blocked_signals() -> list[int]:
    """Return the signals that a new process would inherit as blocked."""
    return [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())]


def current_umask() -> int:
    """Return the umask that a new process would inherit; it can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


def count_spares(request: Request) -> int:
    """Return how many Python children a program starts at most; an unused fork costs some ten milliseconds."""
    if request.children is not None:
        return request.children
    match request.arguments:
        case ["-m", "upsert_cli", command, *_] if command in WITHOUT_CHILDREN:
            return 0
        case ["-c", program, *_] if "upsert_cli" not in program:
            return 0
        case ["-m" | "-c", *words]:
            count = next((count for word, count in CHILDREN.items() if word in words), 1)
            return count + count_readers(words)
    return 0


def count_readers(words: list[str]) -> int:
    """Return how many more children a command starts that reads a collection, which it opens up to three times."""
    sources = [word for word in words if word.startswith("chroma:")]
    often = "--where" in words or any(word.startswith("chroma:http") for word in sources)
    return (3 if often else 1) if sources else 0


def keep_spares(count: int) -> Request | None:
    """Fork spare processes for this command's first Python children; in a spare, return the program to run."""
    spares: list[Spare] = []
    for _ in range(count):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if not (pid := os.fork()):
            for connection in (ours, *(connection for _, connection in spares)):
                connection.close()
            return _await_request(theirs)
        theirs.close()
        spares.append((pid, ours))
    if spares:
        _use_spares(spares)
    return None


def _await_request(connection: socket.socket) -> Request:
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)  # they are meant for the command
    message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 16)
    if not message:
        os._exit(0)
    request = Request(**json.loads(message))
    take_over(request, descriptors)
    return request


def _use_spares(spares: list[Spare]) -> None:
    """Let the next Python programs that this process starts run in the spares."""
    start: Any = subprocess._fork_exec  # type: ignore[attr-defined]  # a child must be this process's own, as it is here

    def fork_exec(*call: Any) -> int:
        arguments, _, _, kept, folder, environment, stdin, _, _, stdout, _, stderr, _, errors, *_ = call
        arguments = [os.fsdecode(argument) for argument in arguments]
        is_program = arguments[0] == sys.executable and arguments[1] in PROGRAMS
        if not is_program or environment is None or not spares:
            child: int = start(*call)
            return child
        pid, connection = spares.pop()
        numbers = [number for number in kept if number != errors]
        given = [(descriptor, number) for number, descriptor in enumerate((stdin, stdout, stderr)) if descriptor != -1]
        given += [(number, number) for number in numbers]
        request = Request(
            arguments=arguments[1:],
            environment=dict(os.fsdecode(pair).split("=", 1) for pair in environment),
            folder=folder or os.getcwd(),  # noqa: PTH109
            descriptors=[number for _, number in given],
            blocked=blocked_signals(),
            umask=current_umask(),
        )
        socket.send_fds(connection, [request.encode()], [descriptor for descriptor, _ in given])
        connection.close()
        return pid

    subprocess._fork_exec = fork_exec  # type: ignore[attr-defined]


def run(arguments: list[str]) -> None:
    """Run a Python program as the interpreter would."""
    words = [word for word in arguments if word != "-P"]
    match words:
        case ["-m", module, *rest]:
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", program, *rest]:
            sys.argv = ["-c", *rest]
            exec(compile(program, "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})  # noqa: S102
        case _:
            raise ValueError(f"not a program: {arguments}")


class Exit:
    """The last step of a process: to end without freeing every module, which costs more than a short command."""

    def __init__(self) -> None:
        self._code: int | None = None
        atexit.register(self._leave)  # the first that is registered is the last that is called

    def run(self, arguments: list[str]) -> None:
        """Run a program, and remember its exit code."""
        try:
            run(arguments)
            self._code = 0
        except SystemExit as ended:
            self._code = 0 if ended.code is None else ended.code if isinstance(ended.code, int) else None
            raise

    def _leave(self) -> None:
        if self._code is None or sys.stdout is None or sys.stderr is None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return  # the interpreter reports it
        os._exit(self._code)


def import_all(names: Iterable[str]) -> None:
    """Import modules, even if some are not installed."""
    for name in names:
        with suppress(ImportError):
            importlib.import_module(name)


def main(control: socket.socket) -> None:
    """Import everything, serve, and run the requested program in each forked process."""
    program = Exit()
    configure_libraries()
    for module in pkgutil.walk_packages(upsert_cli.__path__, "upsert_cli."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    import_all(HEAVY)
    gc.collect()
    gc.freeze()
    request = Server(control).serve()
    if request is not None:
        while (inner := keep_spares(count_spares(request))) is not None:
            request = inner  # this is a spare now, and its program may start others
        program.run(request.arguments)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
