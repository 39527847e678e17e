"""The stages before the writing, joined: read, compare and embed, each in a thread of its own ahead of the next."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial

from upsert_cli import embedding
from upsert_cli.context import Progress
from upsert_cli.documents.document import Recipe
from upsert_cli.embedding.embedder import Embedder, Loader
from upsert_cli.embedding.models import Model
from upsert_cli.journal.load_options import LoadOptions
from upsert_cli.pipeline.batches import Batch, read_batches
from upsert_cli.pipeline.compare import InFlight, compare_batches
from upsert_cli.pipeline.embed import embed_batches
from upsert_cli.pipeline.embedded_batch import Embedded, ItemCounter
from upsert_cli.pipeline.ignored import NOTHING_IGNORED
from upsert_cli.pipeline.pace import Pace
from upsert_cli.pipeline.prefetch import STEP, StreamEnded, run_ahead
from upsert_cli.pipeline.retry_rejects import Rejected, superseded_by_later_rows
from upsert_cli.sources.rows import Rows
from upsert_cli.store.base import Leased
from upsert_cli.store.process import StoreProcess

RUN_AHEAD = 1  # batches that wait between two stages; bounds memory, and more gains nothing
UNMEASURED_BATCHES = 1  # batches of the smallest size, which cost more a row; the next one is read in no time


class Stages:
    """Everything before the writing, and what goes back to it from there: the pace, and what is settled."""

    def __init__(self, options: LoadOptions, progress: Progress, *, pace: Pace | None = None) -> None:
        """Starts nothing yet; `run` does.

        Args:
            options: How the task is loaded.
            progress: Counts what the stages do.
            pace: That of the stages before these, whose speed it knows.
        """
        self._options = options
        self._progress = progress
        self._pace = pace or Pace(options.batch_size)
        self._in_flight = InFlight()
        self._ending = threading.Event()
        self._open = threading.Event()
        self._stopping = threading.Event()
        self.ignored = NOTHING_IGNORED  # fields of the rows that were read
        self._alone: Callable[[Batch], Iterator[Embedded]] | None = None

    def run(
        self,
        rows: Rows,
        *,
        rejected: Callable[[], Iterator[Rejected]],
        model: Model,
        recipe: Recipe,
        writer: StoreProcess,
        wait: Callable[[], None],
        leased: Leased | None = None,
        load: Callable[[], Embedder] | None = None,
    ) -> Generator[Embedded, None, None]:
        """Begins to read, and yields embedded batches, in the order of their rows.

        Args:
            rows: What to read.
            rejected: Yields what is retried where `rows.only` says that something is: a later good row of an id wins.
            model: What to embed with; loaded when the first text needs it.
            recipe: How documents are made of items for that model.
            writer: Tells what the collection holds already.
            wait: Called in the waits of the thread that takes the batches; may raise to end all stages.
            leased: What is known of the collection before it is open; None: it is open.
            load: Returns the model where somebody keeps it loaded; None: it is loaded here.
        """
        options = self._options
        superseded = superseded_by_later_rows(rows, rejected=rejected, ending=self._ending)
        batches = read_batches(
            rows, recipe=recipe, pace=self._pace, superseded=None if rows.only is None else superseded
        )
        loader = Loader(load or (lambda: self._load(model)))
        if leased is None:
            self.opened()
        elif leased.empty or options.force:  # else all may be unchanged
            batches = _for_texts(batches, loader)
        ahead = run_ahead(self._read(batches), depth=RUN_AHEAD, ending=self._ending)
        compare = partial(compare_batches, collection=writer, force=options.force, average=options.average)
        embed = partial(embed_batches, load=loader.embedder, effort=options.effort, clock=time.monotonic)
        self._alone = lambda batch: embed(
            compare(iter([batch]), in_flight=InFlight(), ending=self._stopping), ending=self._stopping
        )
        plans = run_ahead(
            compare(self._once_open(ahead), in_flight=self._in_flight, ending=self._ending),
            depth=RUN_AHEAD,
            ending=self._ending,
        )
        embedded = embed(plans, ending=self._ending)
        return run_ahead(self._embedded(embedded), depth=1, ending=self._ending, wait=wait)

    def opened(self) -> None:
        """Lets batches be compared: the collection is open."""
        self._open.set()

    def _once_open(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Holds batches back meanwhile, since it is the main thread that waits for that, and sees signals."""
        while not (self._ending.is_set() or self._open.wait(STEP)):
            continue
        yield from batches

    def embed(self, batch: Batch) -> Embedded:
        """Compares and embeds, beside the stages, what takes the place of items of a batch that they have yielded.

        Raises:
            StreamEnded: It was not begun, or not ended, before `stop`.
        """
        assert self._alone is not None  # noqa: S101  # set before there is a batch
        embedded = next(self._alone(batch), None)
        if embedded is None:
            raise StreamEnded
        return embedded

    def stop(self) -> None:
        """Ends what `embed` is at between two micro-batches: its batch is then not settled, and loaded again."""
        self._stopping.set()

    def settled(self, batch: Batch, *, write_seconds: float) -> None:
        """Lets the ids of a batch into the collection again, and sizes the next ones by what took longest."""
        self._in_flight.leave(batch.number)
        self._pace.learn("writing", batch.rows, write_seconds)

    def _load(self, model: Model) -> Embedder:
        with self._progress.busy("loading"):
            return embedding.load(model, device=self._options.device)

    def _read(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for number in itertools.count():
            if number == UNMEASURED_BATCHES:
                self._pace.await_first(self._ending)
            with self._progress.busy("reading"):
                batch = next(batches, None)
            if batch is None:
                return
            self._progress.read += batch.read
            self.ignored += batch.ignored
            yield batch

    def _embedded(self, batches: Iterator[Embedded]) -> Iterator[Embedded]:
        items = ItemCounter()
        for embedded in batches:
            self._progress.embedded += items.count(embedded)
            self._progress.embedding_passed += embedded.batch.read
            self._progress.add("embedding", embedded.seconds)
            self._pace.learn("embedding", embedded.batch.rows, embedded.seconds)
            yield embedded


def _for_texts(batches: Iterator[Batch], loader: Loader) -> Iterator[Batch]:
    """Hands batches on, and begins to load the model at the first one with a text that is to be embedded."""
    begun = False
    for batch in batches:
        if not begun and any(document.vector is None for document in batch.documents):
            loader.begin()
            begun = True
        yield batch
