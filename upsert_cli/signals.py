"""Signals that end the program: their handlers, and death by a signal, also as PID 1 of a container."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from signal import _HANDLER

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
SIGNAL_BASE = 128  # shells report 128 and the signal's number
STAGE = "stage"  # the name of threads whose work is not needed when the program ends
INIT = 1  # the process whose signals the kernel drops unless a handler is set


def die_by_signal(number: int) -> NoReturn:
    """End this process by a signal, as shells and CI systems expect; the caller has flushed the streams."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    # Only PID 1 of a container gets here, for which the kernel ignores the default action.
    os._exit(SIGNAL_BASE + number)


def exit_beside_stages(code: int) -> None:
    """Exit at once if a stage is still working, for example waiting for a server; otherwise do nothing.

    A thread that returns from native code while the interpreter ends would abort the process. The caller has flushed
    the streams.
    """
    if any(thread.name == STAGE for thread in threading.enumerate()):
        os._exit(code)


def handle_signals(handler: _HANDLER) -> dict[int, _HANDLER]:
    """Handle the signals that end the program, and return their former handlers; ignored signals stay ignored.

    nohup ignores a signal from the start, and so does a shell for its background jobs.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    handled = {number: former for number, former in before.items() if former is not signal.SIG_IGN}
    for number in handled:
        signal.signal(number, handler)
    return handled


def restore_handlers(before: Mapping[int, _HANDLER]) -> None:
    """Set the handlers that `handle_signals` returned."""
    for number, handler in before.items():
        signal.signal(number, handler)


def end_at_once() -> None:
    """End the process at the first signal, without clean-up; ignored signals stay ignored."""
    handle_signals(deadly_handler())


def deadly_handler() -> _HANDLER:
    """Return the handler of a signal that ends the process at once."""
    # The default action works even while the main thread is in a library call, but not for PID 1.
    return _die if os.getpid() == INIT else signal.SIG_DFL


def _die(number: int, _frame: FrameType | None) -> None:
    die_by_signal(number)


class EndedBySignal(BaseException):
    """Raised in the main thread by a signal while no task is run, so that unfinished work is cleaned up."""

    def __init__(self, number: int, when: str = "") -> None:
        """Keep the number of the signal, and the end of the message, such as `before anything was loaded`."""
        super().__init__(number, when)
        self.number = number
        self._when = when

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name} {self._when}".rstrip()


def end_in_order() -> None:
    """Unwind the program at a signal, with its clean-up; ignored signals stay ignored."""
    handle_signals(_raise_ended)


def _raise_ended(number: int, _frame: FrameType | None) -> None:
    raise EndedBySignal(number)


def exit_code_of(error: Exception | EndedBySignal) -> int:
    """Return the exit code of a process that an error ends."""
    from upsert_cli.errors import Interrupted, UpsertCliError  # late, since the first handlers must not wait for it

    if isinstance(error, EndedBySignal):
        return SIGNAL_BASE + error.number
    if isinstance(error, Interrupted):
        return SIGNAL_BASE + error.signal_number
    return error.exit_code if isinstance(error, UpsertCliError) else UpsertCliError.exit_code
