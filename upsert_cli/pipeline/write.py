"""Embedded batches -> written batches: the store has acknowledged their records.

The last good row of an id wins. If a row cannot be embedded or written, the row before takes its place: a written batch
has such rows as its fallback, which goes through the same stages before both are committed together.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue

from upsert_cli.errors import Stage
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.prefetch import StageStopped, prefetch
from upsert_cli.store.process import StoreProcess


def write(
    batches: Iterator[Batch], stores: Sequence[StoreProcess], *, stopping: threading.Event
) -> Generator[Batch, None, None]:
    """Yield each batch once it is written, in the order of their rows; each store writes one batch at a time.

    Args:
        batches: Embedded batches in the order of their rows.
        stores: Processes that write to the same collection.
        stopping: Set by any thread to begin no further batch.

    Raises:
        StageStopped: `stopping` was set, and all batches in flight have been yielded.
        UpsertCliError: A batch could not be written, and the batches before it have been yielded.
    """
    free: SimpleQueue[StoreProcess] = SimpleQueue()  # stores whose last batch was yielded
    for store in stores:
        free.put(store)

    def begin() -> Generator[tuple[StoreProcess, Future[Batch]], None, None]:
        for batch in batches:
            store = free.get()
            if stopping.is_set():
                raise StageStopped
            yield store, pool.submit(_write_batch, batch, store)

    pool = ThreadPoolExecutor(len(stores), thread_name_prefix="write")
    begun = begin()
    if len(stores) > 1:
        # With another event: at a stop, batches that are being written are still yielded.
        begun = prefetch(begun, depth=len(stores), stopping=threading.Event())
    try:
        for store, future in begun:
            written = future.result()
            free.put(store)
            yield written
    except BaseException:
        stopping.set()  # else closing `begun` would wait for the stages before this one
        free.put(stores[0])  # for a thread that may wait for a store, which then sees the stop
        raise
    finally:
        begun.close()
        pool.shutdown(wait=False)  # after an error, other writes may go on until their stores are abandoned


def _write_batch(batch: Batch, store: StoreProcess) -> Batch:
    if batch.is_unchanged:
        return batch
    upserts, updates = batch.upserts(), batch.updates()
    before = store.seconds["writing"]
    reasons = dict([*store.write(upserts), *store.write(updates)])
    faults = [(document, reasons[document.id]) for document in batch.documents if document.id in reasons]
    return replace(batch.rejecting(faults, Stage.UPSERT), writing_seconds=store.seconds["writing"] - before)
