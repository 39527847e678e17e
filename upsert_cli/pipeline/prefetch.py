"""Running a stage in a thread, a bounded number of values ahead of its consumer.

Stages stay plain generators, and `prefetch` goes between two of them. A consumer waits in short steps only, so the main
thread sees signals and the cancel flag at once.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TypeVar, cast

from upsert_cli.signals import STAGE

T = TypeVar("T")

JOIN_SECONDS = 1.0  # seconds to wait for a stage that stops; one in a longer step, such as a read, is left alone
STEP_SECONDS = 0.05  # seconds between two checks whether a waiting stage has to stop


class StageStopped(Exception):
    """Raised to the consumer of a stage that was stopped before its last value."""


def prefetch(
    stage: Iterator[T], *, depth: int = 1, stopping: threading.Event, wait: Callable[[], None] | None = None
) -> Generator[T, None, None]:
    """Yield the values of `stage`, which runs in a thread that starts at once and stays `depth` values ahead.

    Args:
        stage: A generator; the thread runs and closes it.
        depth: The number of finished values that may wait. One is enough to keep both stages busy, and each costs the
            memory of a batch.
        stopping: Set by any thread to stop all stages that share it; each completes its present value.
        wait: Called before each value, and about every `STEP_SECONDS` during a wait; may raise to give up.

    Raises:
        StageStopped: `stopping` was set.
        BaseException: An error of `stage`, after the values before it.
    """
    consumer = _consume(stage, depth=depth, stopping=stopping, wait=wait)
    next(consumer)  # starts the thread; closing the generator stops it from here on
    return cast("Generator[T, None, None]", consumer)


def in_thread(call: Callable[[], T], *, wait: Callable[[], None]) -> T:
    """Return the result of a call that may take minutes, such as a download; see `prefetch` about `wait`."""

    def result() -> Iterator[T]:
        yield call()

    with closing(prefetch(result(), stopping=threading.Event(), wait=wait)) as found:
        return next(found)


def _consume(
    stage: Iterator[T], *, depth: int, stopping: threading.Event, wait: Callable[[], None] | None
) -> Generator[T | None, None, None]:
    """Start the thread and yield None, then each value."""
    values: queue.Queue[tuple[T] | None] = queue.Queue(maxsize=depth)  # None ends the values
    failures: list[BaseException] = []
    thread = threading.Thread(target=_fill, args=(values, stage, stopping, failures), name=STAGE, daemon=True)
    thread.start()
    finished, joined = False, False
    try:
        yield None
        while not stopping.is_set():
            if wait is not None:
                wait()
            try:
                message = values.get(timeout=STEP_SECONDS)
            except queue.Empty:
                continue
            if message is None:
                finished = True
                if failures:
                    raise failures[0]
                return
            yield message[0]
        thread.join(JOIN_SECONDS)
        joined = True
        raise next(iter(failures), StageStopped())  # a return would look like the end of the data
    finally:
        # If the consumer leaves early, nobody takes the values of the stages.
        if not finished:
            stopping.set()
        if not joined and thread is not threading.current_thread():
            thread.join(JOIN_SECONDS)


def _fill(
    values: queue.Queue[tuple[T] | None],
    stage: Iterator[T],
    stopping: threading.Event,
    failures: list[BaseException],
) -> None:
    try:
        with closing(stage):  # type: ignore[type-var]  # a generator; Iterator has no close()
            for value in stage:
                if not _put(values, (value,), stopping):
                    return
    except BaseException as caught:  # noqa: BLE001  # the consumer raises it
        failures.append(caught)
    _put(values, None, stopping)


def _put(values: queue.Queue[tuple[T] | None], message: tuple[T] | None, stopping: threading.Event) -> bool:
    while not stopping.is_set():
        try:
            values.put(message, timeout=STEP_SECONDS)
        except queue.Full:
            continue
        return True
    return False
