"""Rows -> batches: runs of consecutive rows that are compared, embedded, written and committed together.

A checkpoint follows each batch, so a batch is bounded in rows, in characters and, through `Pace`, in seconds. An item
with too many chunks for one batch gets several batches, and its row is committed with the last one.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from upsert_cli.counts import NOTHING_IGNORED, IgnoredFields
from upsert_cli.documents.document import Document, make_document, size_of, split_item
from upsert_cli.documents.recipe import Recipe
from upsert_cli.errors import ItemError, UpsertCliError
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.prefetch import STEP_SECONDS
from upsert_cli.pipeline.retry_rejects import Superseded, nothing_superseded
from upsert_cli.sources.item import Item, Position, Reject
from upsert_cli.sources.rows import Rows, RowStream

MIN_ROWS = 64  # rows; below, Chroma's cost a row doubles (measured)
MAX_ROWS = 512  # rows; Chroma's index survives kill -9 best with writes up to this size (measured)
# Batches of mostly unchanged rows may have more: that takes a fifth less CPU a row (measured).
LIGHT_ROWS = 2_048  # rows
LIGHT_SECONDS = 0.0005  # seconds a row, a fortieth of what embedding one takes
GROWTH = 4  # times that a batch may be larger than the one before
TARGET_SECONDS = 3.0  # seconds a batch; CI systems grant 7.5 s between SIGINT and SIGTERM
MAX_SIZE = 4 << 20  # characters of text, metadata and rejects in a batch; about seven batches are in memory at once


class Pace:
    """The size of the next batch, which should take about `TARGET_SECONDS` on this machine."""

    def __init__(self, fixed_rows: int | None = None) -> None:
        """Start with the smallest size, since the speed is unknown; or keep to the user's number of rows."""
        self._fixed = fixed_rows is not None
        self._row_seconds: dict[str, float] = {}
        self._known = threading.Event()
        self.rows = fixed_rows if fixed_rows is not None else MIN_ROWS

    def learn(self, stage: str, rows: int, seconds: float) -> None:
        """Record the seconds that a stage spent on a number of rows; the slowest stage counts."""
        if self._fixed:
            return
        self._known.set()
        if rows == 0:  # an empty batch shows no speed
            return
        self._row_seconds[stage] = seconds / rows
        slowest = max(self._row_seconds.values())
        most = LIGHT_ROWS if slowest < LIGHT_SECONDS else MAX_ROWS
        fitting = int(TARGET_SECONDS / max(slowest, TARGET_SECONDS / most))
        # The size grows slowly, since a batch of unchanged rows may precede one of new rows.
        self.rows = max(MIN_ROWS, min(fitting, GROWTH * self.rows))

    def await_first(self, stopping: threading.Event) -> None:
        """Wait for the first measurement; else the reader would fill the queue with batches of the smallest size."""
        while not (self._fixed or stopping.is_set() or self._known.wait(STEP_SECONDS)):
            continue


def read_batches(
    rows: Rows,
    *,
    recipe: Recipe,
    pace: Pace | None = None,
    superseded: AbstractContextManager[Superseded] | None = None,
) -> Iterator[Batch]:
    """Yield rows in batches of about `pace.rows` rows.

    Args:
        rows: The rows to read.
        recipe: How an item becomes documents.
        pace: The size of the batches; None for `MAX_ROWS`.
        superseded: Entered and left by this generator; yields a function that finds rows to count as duplicates.

    Raises:
        SourceUnreadable: A file broke off or cannot be read any further; raised after the batch of the rows before.
        Refusal: A file ends before a row that has to be read; raised in the same way.
    """
    pace = pace or Pace(MAX_ROWS)
    numbers = itertools.count()
    with superseded or nullcontext(nothing_superseded) as is_superseded:
        builder = _BatchBuilder(recipe, is_superseded, after=rows.start)
        errors: list[UpsertCliError] = []
        for row, after in _until_error(iter(rows), errors):
            long = builder.add(row, room=pace.rows)
            if long is None:
                builder.after = after
                if builder.read < pace.rows and builder.records < pace.rows and builder.size < MAX_SIZE:
                    continue
            if builder.read:
                yield builder.build(next(numbers))
            if long is not None:
                yield from long.batches(pace, numbers, before=builder.after, after=after)
            builder = _BatchBuilder(recipe, is_superseded, after=after)
        if builder.read:
            yield builder.build(next(numbers))
        if errors:
            raise errors[0]


def _until_error(rows: RowStream, errors: list[UpsertCliError]) -> RowStream:
    """Yield the rows, and keep an error of their source, so that it is raised after the batch of these rows."""
    try:
        yield from rows
    except UpsertCliError as error:
        errors.append(error)


class _BatchBuilder:
    """A batch that rows are added to."""

    def __init__(self, recipe: Recipe, is_superseded: Superseded, *, after: Position) -> None:
        self._recipe = recipe
        self._is_superseded = is_superseded
        self.read = 0
        self.size = 0
        self.records = 0
        self._items: dict[str, Sequence[Document]] = {}
        self._earlier: dict[str, list[Sequence[Document]]] = {}
        self._rejects: list[Reject] = []
        self._ignored = NOTHING_IGNORED
        self.after = after

    def add(self, row: Item | Reject, *, room: int) -> _LongItem | None:
        """Add a row; return its item instead if it has more than `room` chunks, and so needs batches for itself."""
        if isinstance(row, Reject):
            self._add_reject(row)
            return None
        documents: Sequence[Document]
        try:
            if self._recipe.splitter is None:
                documents = (make_document(row, self._recipe),)
            else:
                average, chunks = split_item(row, self._recipe, self._recipe.splitter)
                documents = _take(chunks, room)
                if not documents[-1].is_last_chunk and not self._is_superseded(row):
                    return _LongItem(row, average, documents, chunks)
                documents = documents if average is None else [average, *documents]
        except ItemError as error:
            self._add_reject(Reject.of(row, stage=error.stage, detail=error.detail))
            self._ignored += IgnoredFields.of(row.ignored)
            return None
        self.read += 1
        if row.ignored:
            self._ignored += IgnoredFields.of(row.ignored)
        if not self._is_superseded(row):
            self._add_item(row.object_id, documents)
        return None

    def _add_item(self, object_id: str, documents: Sequence[Document]) -> None:
        if object_id in self._items:
            # Removed first, so that the items stay in the order of their last rows.
            self._earlier.setdefault(object_id, []).append(self._items.pop(object_id))
        self._items[object_id] = documents
        for document in documents:
            self.size += document.size
        self.records += len(documents)

    def _add_reject(self, reject: Reject) -> None:
        self.read += 1
        self._rejects.append(reject)
        self.size += size_of(reject.payload) + size_of(reject.item_info) + len(reject.line or "")

    def build(self, number: int) -> Batch:
        return Batch(
            number=number,
            documents=tuple(itertools.chain.from_iterable(self._items.values())),
            rejects=tuple(self._rejects),
            read=self.read,
            duplicate=self.read - len(self._items) - len(self._rejects),
            after=self.after,
            ignored=self._ignored,
            earlier={object_id: tuple(items) for object_id, items in self._earlier.items()},
        )


class _LongItem(NamedTuple):
    """An item with too many chunks for one batch."""

    item: Item
    average: Document | None
    first: Sequence[Document]
    rest: Iterator[Document]

    def batches(self, pace: Pace, numbers: Iterator[int], *, before: Position, after: Position) -> Iterator[Batch]:
        """Yield the batches of the item; after a crash between two of them, reading continues before the item."""
        chunks = self.first
        average = () if self.average is None else (self.average,)
        ignored = IgnoredFields.of(self.item.ignored)
        try:
            while not chunks[-1].is_last_chunk:
                yield Batch(number=next(numbers), documents=(*average, *chunks), read=0, after=before, goes_on=True)
                chunks = _take(self.rest, pace.rows)
        except ItemError as error:
            reject = Reject.of(self.item, stage=error.stage, detail=error.detail)
            yield Batch(number=next(numbers), rejects=(reject,), read=1, after=after, ignored=ignored)
        else:
            yield Batch(number=next(numbers), documents=(*average, *chunks), read=1, after=after, ignored=ignored)


def _take(chunks: Iterator[Document], room: int) -> list[Document]:
    """Return the next chunks of an item, up to the size of a batch."""
    taken: list[Document] = []
    size = 0
    for chunk in chunks:
        taken.append(chunk)
        size += chunk.size
        if len(taken) >= room or size >= MAX_SIZE:
            break
    return taken
