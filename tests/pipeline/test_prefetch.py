"""Stages that run ahead in threads: no value is lost or out of order, and no thread is left running."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.support.waiting import wait_until
from upsert_cli.pipeline.prefetch import StageStopped, prefetch


def test_everything_arrives_in_order_through_several_stages() -> None:
    """Three stages in a row hand on every value, in order, and then end."""
    for _ in range(50):
        stopping = threading.Event()
        stage = iter(range(100))
        for _ in range(3):
            stage = prefetch((value for value in stage), depth=2, stopping=stopping)
        assert list(stage) == list(range(100))


def test_a_stage_stays_only_so_far_ahead() -> None:
    """No more than `depth` finished values wait, besides the one that is being handed over."""
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    stage = prefetch(numbers(), depth=2, stopping=threading.Event())
    for taken in range(5):
        assert next(stage) == taken
        wait_until(lambda: len(made) == taken + 4)  # noqa: B023  # called before the next one
    assert list(stage) == list(range(5, 50))


def test_an_error_comes_in_its_place() -> None:
    """An error of a stage reaches the consumer after the values before it."""

    def broken() -> Iterator[int]:
        yield 1
        raise KeyError("here")

    stopping = threading.Event()
    stage = prefetch((value for value in prefetch(broken(), depth=2, stopping=stopping)), depth=2, stopping=stopping)
    assert next(stage) == 1
    with pytest.raises(KeyError, match="here"):
        next(stage)


def test_leaving_early_ends_and_closes_all_stages() -> None:
    """When the consumer leaves, the threads end, and the innermost generator is closed."""
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.set()

    stopping = threading.Event()
    stage = prefetch((value for value in prefetch(endless(), depth=2, stopping=stopping)), depth=2, stopping=stopping)
    next(stage)
    stage.close()
    assert closed.wait(5)


def test_a_stage_that_is_stuck_holds_nobody_up() -> None:
    """A consumer leaves, or learns that all stages are stopped, while a stage before it still waits for a server."""
    answered, ended = threading.Event(), threading.Event()

    def stuck() -> Iterator[int]:
        yield 0
        answered.wait(10)
        ended.set()

    stopping = threading.Event()
    stage = prefetch((value for value in prefetch(stuck(), stopping=stopping)), stopping=stopping)
    assert next(stage) == 0
    stopping.set()
    with pytest.raises(StageStopped):
        next(stage)
    assert not ended.is_set()
    answered.set()
    assert ended.wait(10)


def test_waiting_may_give_up() -> None:
    """The consumer's hook is called while it waits, and may end the waiting."""

    def slow() -> Iterator[int]:
        stopping.wait(30)
        yield 0

    def give_up() -> None:
        raise TimeoutError

    stopping = threading.Event()
    with pytest.raises(TimeoutError):
        next(prefetch(slow(), depth=1, stopping=stopping, wait=give_up))
    assert stopping.is_set()
