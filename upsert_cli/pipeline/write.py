"""Embedded batches -> written batches: the store has acknowledged their records, in the order of their rows.

The last good row of an id wins. A row that cannot be embedded or written leaves its place to the row before it: a
written batch names these rows as its fallback, which goes through the same stages before both are committed together.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import replace
from queue import SimpleQueue

from upsert_cli.errors import Stage
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.prefetch import STEP_SECONDS, StageStopped, prefetch
from upsert_cli.sources.item import Reject
from upsert_cli.store.process import StoreProcess


def write(
    batches: Iterator[Batch],
    stores: Sequence[StoreProcess],
    *,
    stopping: threading.Event,
    wait: Callable[[], None],
) -> Generator[Batch, None, None]:
    """Write batches, one per store at the same time, and yield each one once it is written.

    At a stop no further batch begins, and those in flight are still yielded.

    Args:
        batches: In the order of their rows.
        stores: Processes that write to the same collection.
        stopping: Set by any thread to begin no further batch.
        wait: Called about every `STEP_SECONDS` in the waits of the calling thread; may raise to give up.

    Raises:
        StageStopped: `stopping` was set, and all batches in flight are yielded.
        UpsertCliError: A batch could not be written; the batches before it are yielded.
    """
    pool = ThreadPoolExecutor(len(stores), thread_name_prefix="write")
    room = threading.Semaphore(len(stores))  # for batches that are begun and not yet yielded
    # Its own event, since batches that are being written at a stop are still yielded.
    begun = prefetch(
        _begin(batches, stores, pool, room=room, stopping=stopping),
        depth=len(stores),
        stopping=threading.Event(),
        wait=wait,
    )
    try:
        for future in begun:
            wait()  # also where batches follow each other without a pause, as those without a change do
            while not future.done():
                wait_for([future], timeout=STEP_SECONDS)
                wait()
            written = future.result()
            room.release()
            yield written
    except BaseException:
        stopping.set()  # else closing `begun` would wait for the stages before this one
        raise
    finally:
        room.release()  # for the thread that may wait for it, which then sees the stop
        begun.close()
        pool.shutdown(wait=False, cancel_futures=True)


def _begin(
    batches: Iterator[Batch],
    stores: Sequence[StoreProcess],
    pool: ThreadPoolExecutor,
    *,
    room: threading.Semaphore,
    stopping: threading.Event,
) -> Iterator[Future[Batch]]:
    """Begin to write each batch as soon as a store is free and there is room."""
    free: SimpleQueue[StoreProcess] = SimpleQueue()
    for store in stores:
        free.put(store)

    for embedded in batches:
        room.acquire()
        store = free.get()
        if stopping.is_set():
            raise StageStopped
        future = pool.submit(_write_batch, embedded, store)
        future.add_done_callback(lambda _, store=store: free.put(store))  # type: ignore[misc]
        yield future


def _write_batch(batch: Batch, store: StoreProcess) -> Batch:
    if batch.is_unchanged:
        return batch
    upserts, updates = batch.upserts(), batch.updates()
    before = store.seconds["writing"]
    reasons = dict([*store.write(upserts), *store.write(updates)])
    failed = dict(batch.failed)
    for document in batch.documents:
        if document.id in reasons:
            reject = Reject.of(document.item, stage=Stage.UPSERT, detail=reasons[document.id])
            failed.setdefault(document.item.object_id, reject)
    return replace(batch, failed=failed, writing_seconds=store.seconds["writing"] - before)
