"""The writing stage: it stops in time, and loses nothing that is in flight."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.prefetch import StageStopped
from upsert_cli.pipeline.write import write
from upsert_cli.sources.item import START


def _unchanged() -> Iterator[Batch]:
    """Yield batches without an end, in which nothing has to be written."""
    for number in itertools.count():
        yield Batch(number=number, read=1, after=START)


@pytest.mark.parametrize("stores", [1, 3])
def test_a_stop_ends_the_stage_after_the_batches_in_flight(stores: int) -> None:
    """The consumer's hook may stop the stages; batches that are begun are still yielded, in order."""
    stopping = threading.Event()
    calls = itertools.count()

    def wait() -> None:
        if next(calls) == 10:
            stopping.set()

    nobody: list[Any] = [object()] * stores
    written: list[Batch] = []
    with pytest.raises(StageStopped):
        for one in write(_unchanged(), nobody, stopping=stopping, wait=wait):
            written.append(one)
            assert len(written) < 1_000
    assert [one.number for one in written] == list(range(len(written)))
