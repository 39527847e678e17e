"""The stages before the writing, joined: read, compare and embed, each in a thread of its own ahead of the next."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial

from upsert_cli.loading.progress import Progress
from upsert_cli.loading.request import Options
from upsert_cli.loading.resources import load_model
from upsert_cli.models import Model
from upsert_cli.stream.ahead import STEP, StreamEnded, run_ahead
from upsert_cli.stream.chroma.rows import Leased
from upsert_cli.stream.chroma.writer import Writer
from upsert_cli.stream.documents.document import Recipe
from upsert_cli.stream.embedded import Embedded, ItemCounter
from upsert_cli.stream.embedder import Embedder, Loader
from upsert_cli.stream.items.reading import Position
from upsert_cli.stream.pace import Pace
from upsert_cli.stream.plans import InFlight, compare_windows
from upsert_cli.stream.sources.source import Source
from upsert_cli.stream.superseded import Rejected, superseded_by_later_rows
from upsert_cli.stream.units import Unit
from upsert_cli.stream.vectors import embed_windows
from upsert_cli.stream.windows import Window, read_windows

RUN_AHEAD = 1  # windows that wait between two stages; bounds memory, and more gains nothing
UNMEASURED_WINDOWS = 1  # windows of the smallest size, which cost more a row; the next one is read in no time


class Stages:
    """Everything before the writing, and what goes back to it from there: the pace, and what is settled."""

    def __init__(self, options: Options, progress: Progress, *, pace: Pace | None = None) -> None:
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
        self._alone: Callable[[Window], Iterator[Embedded]] | None = None

    def run(
        self,
        sources: list[Source],
        *,
        start: Position,
        only: Iterator[tuple[str, int]] | None,
        rejected: Callable[[], Iterator[Rejected]],
        model: Model,
        recipe: Recipe,
        writer: Writer,
        wait: Callable[[], None],
        leased: Leased | None = None,
        unit: Unit | None = None,
        load: Callable[[], Embedder] | None = None,
    ) -> Generator[Embedded, None, None]:
        """Begins to read, and yields embedded windows, in the order of their rows.

        Args:
            sources: What to read.
            start: Where to begin.
            only: Source and row of the rows to read, in their order; None: all.
            rejected: Yields what is retried where `only` says that something is: a later good row of an id wins.
            model: What to embed with; loaded when the first text needs it.
            recipe: How documents are made of items for that model.
            writer: Tells what the collection holds already.
            wait: Called in the waits of the thread that takes the windows; may raise to end all stages.
            leased: What is known of the collection before it is open; None: it is open.
            unit: Whose rows to read; None: all from `start` on.
            load: Returns the model where somebody keeps it loaded; None: it is loaded here.
        """
        options = self._options
        superseded = superseded_by_later_rows(
            sources, id_field=options.id_field, id_from=options.id_from, rejected=rejected, ending=self._ending
        )
        windows = read_windows(
            sources,
            start=start,
            id_field=options.id_field,
            id_from=options.id_from,
            recipe=recipe,
            pace=self._pace,
            only=only,
            unit=unit,
            superseded=None if only is None else superseded,
        )
        loader = Loader(load or (lambda: self._load(model)))
        if leased is None:
            self.opened()
        elif leased.empty or options.force:  # else all may be unchanged
            windows = _for_texts(windows, loader)
        ahead = run_ahead(self._read(windows), depth=RUN_AHEAD, ending=self._ending)
        compare = partial(compare_windows, collection=writer, force=options.force, average=options.average)
        embed = partial(embed_windows, load=loader.embedder, effort=options.effort, clock=time.monotonic)
        self._alone = lambda window: embed(
            compare(iter([window]), in_flight=InFlight(), ending=self._stopping), ending=self._stopping
        )
        plans = run_ahead(
            compare(self._once_open(ahead), in_flight=self._in_flight, ending=self._ending),
            depth=RUN_AHEAD,
            ending=self._ending,
        )
        embedded = embed(plans, ending=self._ending)
        return run_ahead(self._embedded(embedded), depth=1, ending=self._ending, wait=wait)

    def opened(self) -> None:
        """Lets windows be compared: the collection is open."""
        self._open.set()

    def _once_open(self, windows: Iterator[Window]) -> Iterator[Window]:
        """Holds windows back meanwhile, since it is the main thread that waits for that, and sees signals."""
        while not (self._ending.is_set() or self._open.wait(STEP)):
            continue
        yield from windows

    def embed(self, window: Window) -> Embedded:
        """Compares and embeds, beside the stages, what takes the place of items of a window that they have yielded.

        Raises:
            StreamEnded: It was not begun, or not ended, before `stop`.
        """
        assert self._alone is not None  # noqa: S101  # set before there is a window
        embedded = next(self._alone(window), None)
        if embedded is None:
            raise StreamEnded
        return embedded

    def stop(self) -> None:
        """Ends what `embed` is at between two micro-batches: its window is then not settled, and loaded again."""
        self._stopping.set()

    def settled(self, window: Window, *, write_seconds: float) -> None:
        """Lets the ids of a window into the collection again, and sizes the next ones by what took longest."""
        self._in_flight.leave(window.number)
        self._pace.learn("writing", window.rows, write_seconds)

    def _load(self, model: Model) -> Embedder:
        with self._progress.busy("loading"):
            return load_model(model, self._options)

    def _read(self, windows: Iterator[Window]) -> Iterator[Window]:
        for number in itertools.count():
            if number == UNMEASURED_WINDOWS:
                self._pace.await_first(self._ending)
            with self._progress.busy("reading"):
                window = next(windows, None)
            if window is None:
                return
            self._progress.read += window.read
            self._progress.ignored += window.ignored
            yield window

    def _embedded(self, windows: Iterator[Embedded]) -> Iterator[Embedded]:
        items = ItemCounter()
        for embedded in windows:
            self._progress.embedded += items.count(embedded)
            self._progress.embedding_passed += embedded.window.read
            self._progress.add("embedding", embedded.seconds)
            self._pace.learn("embedding", embedded.window.rows, embedded.seconds)
            yield embedded


def _for_texts(windows: Iterator[Window], loader: Loader) -> Iterator[Window]:
    """Hands windows on, and begins to load the model at the first one with a text that is to be embedded."""
    begun = False
    for window in windows:
        if not begun and any(document.vector is None for document in window.documents):
            loader.begin()
            begun = True
        yield window
