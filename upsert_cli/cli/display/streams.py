"""Standard streams that are open, take any text, mask secrets, and remember whether stdout could be written."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from upsert_cli.errors import UpsertCliError, reason_of
from upsert_cli.redaction import without_secrets

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


ESCAPES = "backslashreplace"  # a terminal or log without Unicode gets escapes instead of a crash


class _Output(io.FileIO):
    """The file of stdout; remembers why a write failed."""

    fault: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.fault = error
            raise


class _Masking(io.TextIOWrapper):
    """A stream that masks secrets, also from the log messages of libraries."""

    def write(self, text: str, /) -> int:
        super().write(without_secrets(text))
        return len(text)


@contextmanager
def reliable_streams() -> Iterator[None]:
    """Prepare the standard streams, and flush them at the end."""
    _replace_closed_streams()
    sys.stdout.flush()
    output = _Output(sys.stdout.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(output), encoding=sys.stdout.encoding, errors=ESCAPES)
    sys.stderr.flush()
    # On the descriptor, not on the buffer of the replaced stream, which closes its buffer when it is collected.
    errors = io.BufferedWriter(io.FileIO(sys.stderr.fileno(), "w", closefd=False))
    sys.stderr = _Masking(errors, encoding=sys.stderr.encoding, errors=ESCAPES, line_buffering=True)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush_or_discard(stream)


def _replace_closed_streams() -> None:
    """Replace streams that a daemon or cron wrapper has closed, so that only a command that needs one fails.

    The descriptor is occupied, so that no other file gets its number. It is opened in the wrong direction, so that its
    use is an error, except for stderr, where messages may be lost.
    """
    wrong_ways = {"stdin": ("r", os.O_WRONLY), "stdout": ("w", os.O_RDONLY), "stderr": ("w", os.O_RDWR)}
    for name, (mode, way) in wrong_ways.items():
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, way)  # stays open while the process lives
            setattr(sys, name, open(nowhere, mode, closefd=False))  # noqa: SIM115  # Path has none for a descriptor


def require_stdout() -> None:
    """Check that stdout is open, before a command does something that it could not report.

    Raises:
        UpsertCliError: It is closed, or only open for reading.
    """
    if not is_writable():
        raise _unwritable(OSError(errno.EBADF, os.strerror(errno.EBADF)))


def is_writable() -> bool:
    """Tell whether stdout is open for writing."""
    output = _output()
    return output is None or fcntl.fcntl(output.fileno(), fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def flush_streams() -> None:
    """Write out the buffers, since dying by a signal does not."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()


def stdout_fault() -> UpsertCliError | None:
    """Return the error for a failed write to stdout, if one failed."""
    output = _output()
    return None if output is None or output.fault is None else _unwritable(output.fault)


def _output() -> _Output | None:
    output = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return output if isinstance(output, _Output) else None


def _unwritable(fault: OSError) -> UpsertCliError:
    reason = "it is closed" if fault.errno == errno.EBADF else reason_of(fault)
    return UpsertCliError(
        message=f"standard output cannot be written ({reason}); redirect it to a file or a pipe, then try again"
    )


def _flush_or_discard(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        # Otherwise the interpreter would fail to flush it and exit with 120 even after a success.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
