"""Standard streams that a program can rely on: open, taking any text, and telling whether stdout could be written."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from upsert_cli.errors import StdoutUnwritable
from upsert_cli.redaction import without_secrets

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Output(io.FileIO):
    """The file behind stdout; remembers why it could not be written."""

    fault: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.fault = error
            raise


class _Masking(io.TextIOWrapper):
    """A stream on which no secret appears, whoever writes to it: libraries log to stderr, too."""

    def write(self, text: str, /) -> int:
        super().write(without_secrets(text))
        return len(text)


@contextmanager
def reliable_streams() -> Iterator[None]:
    """Make the standard streams ready, and let go of them at the end.

    Daemons and cron wrappers close them, and only a command that needs such a stream may fail. Its descriptor is taken,
    so that no other file gets its number, and opened the wrong way, so that using it is an error, not an empty file.
    """
    wrong_ways = {"stdin": ("r", os.O_WRONLY), "stdout": ("w", os.O_RDONLY), "stderr": ("w", os.O_RDWR)}
    for name, (mode, way) in wrong_ways.items():
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, way)  # for as long as the process lives
            setattr(sys, name, open(nowhere, mode, closefd=False))  # noqa: SIM115  # Path has none for a descriptor
    sys.stdout.flush()
    output = _Output(sys.stdout.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(output), encoding=sys.stdout.encoding)
    sys.stderr.flush()
    # On the descriptor, not on the buffer of the stream that it replaces, which closes its buffer when it goes.
    errors = io.FileIO(sys.stderr.fileno(), "w", closefd=False)
    sys.stderr = _Masking(io.BufferedWriter(errors), encoding=sys.stderr.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        # A terminal or log that takes no Unicode gets escapes, not a crash.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            _let_go(stream)


def require_stdout() -> None:
    """Check that stdout is open, before a command does what it could not report.

    Raises:
        StdoutUnwritable: It is closed, or open for reading alone.
    """
    output = _output()
    if output is not None and fcntl.fcntl(output.fileno(), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise _unwritable(OSError(errno.EBADF, os.strerror(errno.EBADF)))


def flush_streams() -> None:
    """Writes out what is still buffered, since dying by a signal does not."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()


def stdout_fault() -> StdoutUnwritable | None:
    """Return why stdout could not be written, if it could not."""
    output = _output()
    return None if output is None or output.fault is None else _unwritable(output.fault)


def _output() -> _Output | None:
    output = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return output if isinstance(output, _Output) else None


def _unwritable(fault: OSError) -> StdoutUnwritable:
    reason = "it is closed" if fault.errno == errno.EBADF else fault.strerror or str(fault)
    return StdoutUnwritable(reason=reason)


def _let_go(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        # What is left would end in the interpreter's own exit code, 120, which says nothing of what was done.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
