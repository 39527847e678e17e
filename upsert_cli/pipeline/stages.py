"""The four stages of a load, joined: read -> compare -> embed -> write, each in a thread ahead of the next."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager

from upsert_cli.context import RunContext
from upsert_cli.documents.recipe import Recipe
from upsert_cli.embedding.embedder import Loader
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.pipeline.batch import Batch, BatchOutcome, Outcomes
from upsert_cli.pipeline.batches import Pace, read_batches
from upsert_cli.pipeline.compare import InFlight, compare
from upsert_cli.pipeline.embed import embed
from upsert_cli.pipeline.prefetch import prefetch
from upsert_cli.pipeline.retry_rejects import Rejected, superseded_by_later_rows
from upsert_cli.pipeline.write import write
from upsert_cli.sources.rows import Rows
from upsert_cli.store.process import StoreProcess

UNMEASURED_BATCHES = 1  # batches of the smallest size, which cost more a row, before the speed is measured


class Stages:
    """The stages of one attempt at a load."""

    def __init__(
        self,
        options: LoadOptions,
        context: RunContext,
        loader: Loader,
        *,
        pace: Pace | None = None,
        wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Start nothing yet.

        Args:
            options: The options of the load.
            context: The stages count its progress.
            loader: Loads the model at the first text that needs it.
            pace: The size of the batches, as earlier attempts have measured it.
            wait: Called before each batch and in the waits of the consuming thread; may raise to give up.
        """
        self.stopping = threading.Event()
        """Set to stop all stages: no further batch is written, but batches in flight are still yielded."""

        self._options = options
        self._context = context
        self._loader = loader
        self._pace = pace or Pace(options.batch_size)
        self._wait = wait
        self._in_flight = InFlight(self.stopping)
        self._outcomes = Outcomes()

    def read_ahead(
        self, rows: Rows, recipe: Recipe, *, rejected: Rejected | None = None, loads: bool = False
    ) -> Generator[Batch, None, None]:
        """Begin to read in a thread, maybe before the collection is open.

        Args:
            rows: The rows to read.
            recipe: How an item becomes documents.
            rejected: For a retry of rejects, returns all of them.
            loads: Whether the model begins to load at the first text, since texts will be embedded in any case.
        """
        superseded = None
        if rejected is not None:
            superseded = superseded_by_later_rows(rows, rejected=rejected, stopping=self.stopping)
        batches = read_batches(rows, recipe=recipe, pace=self._pace, superseded=superseded)
        return prefetch(self._read(batches, loads=loads), stopping=self.stopping)

    def run(self, batches: Iterator[Batch], stores: Sequence[StoreProcess]) -> Generator[BatchOutcome, None, None]:
        """Yield the outcome of each batch of `read_ahead`, in the order of their rows.

        The consumer commits an outcome before it asks for the next one. Each store writes one batch at a time, all of
        them to the same collection.

        Raises:
            StageStopped: `stopping` was set, and all batches in flight have been yielded.
            UpsertCliError: A stage failed, and all batches before that have been yielded.
        """
        compared = prefetch(self._compare(batches, stores[0]), stopping=self.stopping)
        embedded = prefetch(self._counted(self._embed(compared)), stopping=self.stopping)
        with closing(self._write(embedded, stores)) as written:
            try:
                for first in written:
                    with self._abandoning(stores):
                        results = self._with_fallbacks(first, stores)
                        outcome = self._outcomes.of_written(results)
                        stores[0].delete(outcome.stale)  # last, so that no item is ever without data
                    yield outcome
                    # The consumer has committed the batch by now.
                    self._in_flight.leave(first.number)
                    self._pace.learn("writing", first.rows, sum(one.writing_seconds for one in results))
            except BaseException:
                self.stopping.set()  # else closing the last stage would wait for those before it
                raise

    def _read(self, batches: Iterator[Batch], *, loads: bool) -> Iterator[Batch]:
        """Yield the batches, and count their rows; with `loads`, begin to load the model at the first text."""
        progress = self._context.progress
        for batch in self._timed(batches):
            if loads and any(document.vector is None for document in batch.documents):
                self._loader.begin()
                loads = False
            progress.read += batch.read
            if not progress.example and batch.documents:
                progress.example = batch.documents[0].text
            yield batch
            if batch.number + 1 == UNMEASURED_BATCHES:
                self._pace.await_first(self.stopping)
        if progress.total is None:
            progress.total = progress.read

    def _timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches, and count the time that each takes to read."""
        while True:
            with self._context.progress.busy("reading"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _compare(self, batches: Iterator[Batch], store: StoreProcess) -> Iterator[Batch]:
        options = self._options
        return compare(batches, store, in_flight=self._in_flight, force=options.force, average=options.average)

    def _embed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        return embed(batches, load=self._loader.embedder, effort=self._options.effort, stopping=self.stopping)

    def _counted(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        progress = self._context.progress
        items: set[str] = set()
        for batch in batches:
            items |= batch.embedded_items()
            if not batch.goes_on:  # an item longer than a batch counts with its last batch
                progress.embedded += len(items)
                items.clear()
            progress.embedding_passed += batch.read
            progress.add("embedding", batch.embedding_seconds)
            self._pace.learn("embedding", batch.rows, batch.embedding_seconds)
            yield batch

    def _write(self, batches: Iterator[Batch], stores: Sequence[StoreProcess]) -> Generator[Batch, None, None]:
        def wait() -> None:
            with self._abandoning(stores):
                self._wait()

        # With another event: at a stop, batches that are being written are still yielded.
        return prefetch(write(batches, stores, stopping=self.stopping), stopping=threading.Event(), wait=wait)

    @contextmanager
    def _abandoning(self, stores: Sequence[StoreProcess]) -> Iterator[None]:
        """Stop the stages after an error, and abandon the stores, for whose writes the last stage would wait."""
        try:
            yield
        except BaseException:
            self.stopping.set()
            for store in stores:
                store.abandon()
            raise

    def _with_fallbacks(self, first: Batch, stores: Sequence[StoreProcess]) -> list[Batch]:
        """Send the fallbacks of a written batch through the same stages, and return all of them."""
        results = [first]
        while (fallback := results[-1].fallback()) is not None:
            embedded = self._embed(self._compare(iter([fallback]), stores[0]))
            results += self._write(embedded, stores)
        again = [one.embedded_items() for one in results[1:]]
        self._context.progress.embedded += len(set().union(*again) - first.embedded_items())
        return results
