"""Lets one stage of the stream run ahead of the next, in a thread of its own, by a bounded number of items.

Stages stay plain generators; `run_ahead` is put between two of them. Whoever consumes the last one only ever waits in
short steps, so that the main thread sees signals and the cancel flag at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

T = TypeVar("T")

JOIN_SECONDS = 10.0  # seconds; the longest that one step of a stage takes is loading a model
STEP = 0.05  # seconds; the longest that a stage sleeps before it looks whether it should end


class StreamEnded(Exception):
    """Raised by a stage that was ended from elsewhere, to whoever waits for its next value."""


@dataclass(frozen=True, slots=True)
class _Item(Generic[T]):
    value: T


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


def run_ahead(
    stage: Iterator[T], *, depth: int, ending: threading.Event, wait: Callable[[], None] | None = None
) -> Generator[T, None, None]:
    """Yields what `stage` yields, made in a thread that begins at once and stays at most `depth` items ahead.

    Args:
        stage: A generator; it is run and closed by the thread.
        depth: How many finished items may wait in memory.
        ending: Set by anyone to end all stages that share it; an item being made is still finished.
        wait: Called about every `STEP` seconds while there is nothing to yield; may raise to give up.

    Raises:
        BaseException: Whatever `stage` raised, in its place in the order.
    """
    taking = _take(stage, depth=depth, ending=ending, wait=wait)
    next(taking)  # from here on, closing it ends the thread
    return cast("Generator[T, None, None]", taking)


def _take(
    stage: Iterator[T], *, depth: int, ending: threading.Event, wait: Callable[[], None] | None
) -> Generator[T | None, None, None]:
    """Starts the thread and yields None, then what it makes."""
    made: queue.Queue[_Item[T] | _End] = queue.Queue(maxsize=depth)
    failures: list[BaseException] = []
    thread = threading.Thread(target=_fill, args=(made, stage, ending, failures), name="ahead", daemon=True)
    thread.start()
    finished = False
    try:
        yield None
        while not ending.is_set():
            try:
                message = made.get(timeout=STEP)
            except queue.Empty:
                if wait is not None:
                    wait()
                continue
            if isinstance(message, _End):
                finished = True
                if message.error is not None:
                    raise message.error
                return
            yield message.value
        thread.join(JOIN_SECONDS)
        raise next(iter(failures), StreamEnded())  # to return would look like the end of the data
    finally:
        # A consumer that leaves early ends the whole stream: nobody else would take what the stages still make.
        if not finished:
            ending.set()
        # A thread that comes back from native code while the interpreter ends would abort the process.
        if thread is not threading.current_thread():
            thread.join(JOIN_SECONDS)


def _fill(
    made: queue.Queue[_Item[T] | _End], stage: Iterator[T], ending: threading.Event, failures: list[BaseException]
) -> None:
    error: BaseException | None = None
    try:
        with closing(stage):  # type: ignore[type-var]  # a generator; Iterator has no close()
            for value in stage:
                if not _put(made, _Item(value), ending):
                    return
    except BaseException as caught:  # noqa: BLE001  # handed over to the consumer, which raises it
        error = caught
        failures.append(caught)
    _put(made, _End(error), ending)


def _put(made: queue.Queue[_Item[T] | _End], message: _Item[T] | _End, ending: threading.Event) -> bool:
    while not ending.is_set():
        try:
            made.put(message, timeout=STEP)
        except queue.Full:
            continue
        return True
    return False
