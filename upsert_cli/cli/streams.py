"""Standard streams that a program can rely on: open, taking any text, and telling whether stdout could be written."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from upsert_cli.errors import StdoutUnwritable

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


@contextmanager
def reliable_streams() -> Iterator[None]:
    """Makes the standard streams ready, and lets go of them at the end."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # daemons and cron wrappers close them
            nowhere = os.open(os.devnull, os.O_RDWR)  # for as long as the process lives
            setattr(sys, name, open(nowhere, mode, closefd=False))  # noqa: SIM115  # Path has none for a descriptor
    sys.stdout.flush()
    output = _Output(sys.stdout.fileno(), "w", closefd=False)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(output), encoding=sys.stdout.encoding)
    for stream in (sys.stdout, sys.stderr):
        # A terminal or log that takes no Unicode gets escapes, not a crash.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            _let_go(stream)


def flush_streams() -> None:
    """Writes out what is still buffered, since dying by a signal does not."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()


def stdout_fault() -> StdoutUnwritable | None:
    """Returns why stdout could not be written, if it could not."""
    output = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(output, _Output) or output.fault is None:
        return None
    return StdoutUnwritable(reason=output.fault.strerror or str(output.fault))


def _let_go(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        # What is left would end in the interpreter's own exit code, 120, which says nothing of what was done.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
