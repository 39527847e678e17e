"""The writing stage: it stops in time, and loses nothing that is in flight."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from upsert_cli.pipeline.batches import Batch
from upsert_cli.pipeline.embedded_batch import EmbeddedBatch
from upsert_cli.pipeline.prefetch import StageStopped
from upsert_cli.pipeline.write import WrittenBatch, write
from upsert_cli.sources.item import START
from upsert_cli.store.base import Comparison


def _unchanged() -> Iterator[EmbeddedBatch]:
    """Yield batches without an end, in which nothing has to be written."""
    for number in itertools.count():
        batch = Batch(number=number, read=1, after=START)
        yield EmbeddedBatch(batch=batch, comparison=Comparison(verdicts=[], stale_keys=[]))


@pytest.mark.parametrize("stores", [1, 3])
def test_a_stop_ends_the_stage_after_the_batches_in_flight(stores: int) -> None:
    """The consumer's hook may stop the stages; batches that are begun are still yielded, in order."""
    stopping = threading.Event()
    calls = itertools.count()

    def wait() -> None:
        if next(calls) == 10:
            stopping.set()

    nobody: list[Any] = [object()] * stores
    written: list[WrittenBatch] = []
    with pytest.raises(StageStopped):
        for one in write(_unchanged(), nobody, stopping=stopping, wait=wait):
            written.append(one)
            assert len(written) < 1_000
    assert [one.embedded.batch.number for one in written] == list(range(len(written)))
