"""The writing stage: it stops in time, and loses nothing that is in flight."""

from __future__ import annotations

import itertools
import threading
from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from upsert_cli.context import RunContext
from upsert_cli.documents.document import Document
from upsert_cli.embedding.embedder import Loader
from upsert_cli.errors import UpsertCliError
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.prefetch import StageStopped
from upsert_cli.pipeline.stages import Stages
from upsert_cli.pipeline.write import write
from upsert_cli.sources.item import START, Item
from upsert_cli.store.base import Comparison, RecordRef, Verdict


def _unchanged() -> Iterator[Batch]:
    """Yield batches without end that need no write."""
    for number in itertools.count():
        yield Batch(number=number, read=1, after=START)


@pytest.mark.parametrize("stores", [1, 3])
def test_a_stop_ends_the_stage_after_the_batches_in_flight(stores: int) -> None:
    """At a stop no further batch is begun, and those that are begun are still yielded, in order."""
    stopping = threading.Event()
    nobody: list[Any] = [object()] * stores
    written: list[Batch] = []
    with pytest.raises(StageStopped):
        for one in write(_unchanged(), nobody, stopping=stopping):
            written.append(one)
            if len(written) == 10:
                stopping.set()
    assert [one.number for one in written] == list(range(len(written)))
    assert len(written) <= 10 + 2 * stores


class StuckStore:
    """A store whose server never confirms a write."""

    def __init__(self) -> None:
        self.seconds = {"comparing": 0.0, "writing": 0.0}
        self.begun = threading.Event()
        self.abandoned = threading.Event()
        self.ended = threading.Event()

    def compare(self, ids: list[str], *_: object, **__: object) -> Comparison:
        """Find nothing of it."""
        return Comparison(verdicts=[Verdict.NEW] * len(ids))

    def find_stale_chunks(self, *_: object, **__: object) -> dict[str, Any]:
        """Find none."""
        return {}

    def write(self, _: object) -> list[tuple[str, str]]:
        """Write until it is abandoned."""
        self.begun.set()
        self.abandoned.wait(20)
        self.ended.set()
        raise RuntimeError("abandoned")

    def abandon(self) -> None:
        """End the write."""
        self.abandoned.set()


def _with_own_vectors(batches: int) -> Iterator[Batch]:
    for number in range(batches):
        item = Item(str(number), {}, None, "a.jsonl", number + 1)
        document = Document(item.object_id, "", {}, "a.b", item, {}, vector=array("f", [1.0]))
        yield Batch(number=number, documents=(document,), read=1, after=START)


def test_giving_up_does_not_wait_for_a_write_that_never_ends() -> None:
    """A hook that gives up abandons the store, so that neither its write nor the next batch keeps the process."""
    store = StuckStore()

    def give_up() -> None:
        if store.begun.is_set():
            raise TimeoutError

    stages = Stages(LoadOptions(), RunContext(), Loader(lambda: pytest.fail("no text")), wait=give_up)
    with pytest.raises(TimeoutError):
        next(stages.run(_with_own_vectors(3), [cast("Any", store)]))
    assert store.abandoned.is_set()


class StoreWithChunks(StuckStore):
    """A store that never confirms the second write, and has an old chunk of each item."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def find_stale_chunks(self, *asked: Any, **_: object) -> dict[str, Any]:
        """Find one of each item."""
        return {one: [RecordRef(f"{one}#1", "")] for one in asked[0]}

    def write(self, batch: object) -> list[tuple[str, str]]:
        """Write the first batch, whose changes are all upserts."""
        self.writes += 1
        return [] if self.writes <= 2 else super().write(batch)

    def delete(self, _: object) -> list[str]:
        """Meet a signal while the second batch is written."""
        assert self.begun.wait(20)
        raise TimeoutError


def test_giving_up_in_a_deletion_does_not_wait_for_the_next_write() -> None:
    """Stale chunks are deleted while the next batch is written, and a stop there must not wait for a silent server."""
    store = StoreWithChunks()
    stages = Stages(LoadOptions(), RunContext(), Loader(lambda: pytest.fail("no text")))
    with pytest.raises(TimeoutError):
        next(stages.run(_with_own_vectors(3), [cast("Any", store)]))
    assert store.abandoned.is_set()


class FailingStore(StuckStore):
    """A store whose server refuses every write."""

    def write(self, _: object) -> list[tuple[str, str]]:
        """Refuse it."""
        raise UpsertCliError(message="no access")


def test_an_error_does_not_wait_for_other_writes() -> None:
    """If one of several writes fails, the error is raised before the others end, which may take minutes."""
    stuck = StuckStore()
    vectors = {0: np.ones(1, dtype=np.float32)}
    comparison = Comparison(verdicts=[Verdict.NEW])
    batches = (replace(batch, comparison=comparison, vectors=vectors) for batch in _with_own_vectors(4))
    stores = [cast("Any", store) for store in (FailingStore(), stuck, StuckStore())]
    with pytest.raises(UpsertCliError, match="no access"):
        next(write(batches, stores, stopping=threading.Event()))
    assert not stuck.ended.is_set()
    for store in stores:
        store.abandon()
