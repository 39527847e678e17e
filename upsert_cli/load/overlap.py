"""Embedded batches -> written ones, in the order of their rows: one at a time in a folder, several on a server."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import SimpleQueue

from upsert_cli.load.write import Written, write_batch
from upsert_cli.pipeline.batches import Batch
from upsert_cli.pipeline.embedded_batch import Embedded
from upsert_cli.store.process import StoreProcess
from upsert_cli.store.spawn import POLL_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A batch that Chroma has."""

    batch: Batch
    written: list[Written]
    """The batch, and what took the place of some of its items."""

    seconds: float
    """That the writer was busy with it."""


class Overlap:
    """The batches that are being written, each by a writer of its own, in a thread of its own."""

    def __init__(
        self, writers: Sequence[StoreProcess], *, embed: Callable[[Batch], Embedded], between: Callable[[], None]
    ) -> None:
        """Begins nothing yet.

        Args:
            writers: Of one collection; as many batches are written at the same time.
            embed: Called, in any thread, for items that take the place of others which were refused.
            between: Called, in any thread, between two parts of a batch; may raise to leave the others unwritten.
        """
        self._embed = embed
        self._between = between
        self._writers = writers
        self._room = len(writers)
        self._free: SimpleQueue[StoreProcess] = SimpleQueue()
        for writer in writers:
            self._free.put(writer)
        self._threads = ThreadPoolExecutor(len(writers), thread_name_prefix="writing")
        self._begun: deque[Future[Delivered]] = deque()

    @property
    def is_full(self) -> bool:
        """Whether every writer has a batch."""
        return len(self._begun) >= self._room

    @property
    def is_empty(self) -> bool:
        """Whether no batch is on its way."""
        return not self._begun

    def begin(self, embedded: Embedded) -> None:
        """Begins to write a batch; there has to be room."""
        self._begun.append(self._threads.submit(self._write, embedded))

    def await_first(self) -> None:
        """Waits a moment for the first of the batches that are on their way."""
        wait([self._begun[0]], timeout=POLL_SECONDS)

    def delivered(self) -> Iterator[Delivered]:
        """Yields those that are written, up to the first that is not.

        Raises:
            UpsertCliError: That one cannot be written; those behind it must not be settled.
        """
        while self._begun and self._begun[0].done():
            yield self._begun.popleft().result()

    def give_up(self) -> None:
        """Forgets what was begun; what is on its way may still arrive."""
        self._begun.clear()

    def seconds(self) -> dict[str, float]:
        """Returns for how long the writers were busy with calls of a kind, all of them together."""
        return {kind: sum(writer.seconds[kind] for writer in self._writers) for kind in self._writers[0].seconds}

    def close(self) -> None:
        """Begins no more, and waits for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _write(self, embedded: Embedded) -> Delivered:
        writer = self._free.get()
        before = writer.seconds["writing"]
        try:
            written = write_batch(embedded, writer, embed=self._embed, between=self._between)
        finally:
            self._free.put(writer)
        return Delivered(batch=embedded.batch, written=written, seconds=writer.seconds["writing"] - before)
