"""Documents -> Batch: a run of consecutive rows that is compared, embedded and written together.

A batch is the unit of a checkpoint, so it is bounded in rows, in bytes and, through `Pace`, in seconds. An item of
more parts than fit has batches of its own, and only with the last of them is its row settled.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

from upsert_cli.documents.document import Document, Recipe, make_document, size_of, split_item
from upsert_cli.errors import ItemError, UpsertCliError
from upsert_cli.pipeline.ignored import NOTHING_IGNORED, IgnoredFields
from upsert_cli.pipeline.pace import Pace
from upsert_cli.pipeline.retry_rejects import Superseded, nothing_superseded
from upsert_cli.sources.item import Item, Position, Reject
from upsert_cli.sources.rows import Rows, RowStream

MAX_SIZE = 4 << 20  # characters of text, metadata and rejects in a batch; some seven batches are on their way at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A run of consecutive rows, checked one by one; its repeated ids are reduced to the last of each."""

    number: int
    """Counts from 0 in one attempt."""

    documents: tuple[Document, ...]
    """At most one for each id, in the order of their rows; the mean of an item's parts stands before them."""

    rejects: tuple[Reject, ...]
    read: int
    """Rows: items + `len(rejects)` + `duplicate`; 0 where an item's parts go on in the next batch."""

    duplicate: int
    """Rows that a later row with the same id replaced: one in this batch, or one that an earlier attempt loaded."""

    after: Position
    """Where to go on once this batch is settled."""

    goes_on: bool = False
    """Whether the parts of its item go on in the next batch, with which its row is settled."""

    ignored: IgnoredFields = NOTHING_IGNORED

    earlier: Mapping[str, tuple[Sequence[Document], ...]] = field(default_factory=dict)
    """By id, the items that a later row of this batch replaced, in the order of their rows."""

    @property
    def rows(self) -> int:
        """The records to write, or the rows that were read if there are more of them."""
        return max(self.read, len(self.documents))

    def next_choice(self, refused: Collection[str]) -> Batch | None:
        """Returns the items that take the place of those that cannot be loaded, the last row before each; None: none.

        The rows were read, as duplicates, so that the counts of both batches together are those of all rows.

        Args:
            refused: The ids of items that could not be embedded or written; those that are gone are found here.
        """
        here = {document.item.object_id for document in self.documents}.difference(refused)
        chosen = [object_id for object_id in self.earlier if object_id not in here]
        if not chosen:
            return None
        return Batch(
            number=self.number,
            documents=tuple(itertools.chain.from_iterable(self.earlier[one][-1] for one in chosen)),
            rejects=(),
            read=0,
            duplicate=-len(chosen),
            after=self.after,
            earlier={one: self.earlier[one][:-1] for one in chosen if self.earlier[one][:-1]},
        )


def read_batches(
    rows: Rows, *, recipe: Recipe, pace: Pace, superseded: AbstractContextManager[Superseded] | None = None
) -> Iterator[Batch]:
    """Yield rows in batches of about `pace.rows` rows.

    Args:
        rows: What to read.
        recipe: How an item becomes a document.
        pace: How many rows make a batch.
        superseded: Entered and left by this generator; tells which good rows only count as duplicates; None: none.

    Raises:
        SourceUnreadable: A file broke off or cannot be read any further; raised after the batch of the rows before.
        SourceChanged: It ends before a row that was to be yielded; raised in the same way.
    """
    numbers = itertools.count()
    with superseded or nullcontext(nothing_superseded) as is_superseded:
        gathering = _Gathering(recipe, is_superseded, after=rows.start)
        unbroken = _Unbroken(iter(rows))
        for row, after in unbroken:
            long = gathering.add(row, room=pace.rows)
            if long is None:
                gathering.after = after
                if gathering.rows < pace.rows and gathering.size < MAX_SIZE:
                    continue
            if gathering.read:
                yield gathering.batch(next(numbers))
            if long is not None:
                yield from long.batches(pace, numbers, before=gathering.after, after=after)
            gathering = _Gathering(recipe, is_superseded, after=after)
        if gathering.read:
            yield gathering.batch(next(numbers))
        unbroken.check()


class _Unbroken:
    """Rows that end where their source breaks off, so that those before it still make a batch."""

    def __init__(self, rows: RowStream) -> None:
        self._rows = rows
        self._broken: UpsertCliError | None = None

    def __iter__(self) -> RowStream:
        try:
            yield from self._rows
        except UpsertCliError as error:
            self._broken = error

    def check(self) -> None:
        """Raises the error that ended the rows, if one did."""
        if self._broken is not None:
            raise self._broken


class _Gathering:
    """A batch in the making."""

    def __init__(self, recipe: Recipe, is_superseded: Superseded, *, after: Position) -> None:
        self._recipe = recipe
        self._is_superseded = is_superseded
        self.read = 0
        self.size = 0
        self._count = 0
        self._items: dict[str, Sequence[Document]] = {}
        self._earlier: dict[str, list[Sequence[Document]]] = {}
        self._rejects: list[Reject] = []
        self._ignored = NOTHING_IGNORED
        self.after = after

    @property
    def rows(self) -> int:
        """Records to write, or rows that were read if there are more of them."""
        return max(self.read, self._count)

    def add(self, row: Item | Reject, *, room: int) -> _LongItem | None:
        """Takes a row in, unless it is an item of more than `room` parts, which is to have batches of its own."""
        if isinstance(row, Reject):
            self._reject(row)
            return None
        documents: Sequence[Document]
        try:
            if self._recipe.splitter is None:
                documents = (make_document(row, self._recipe),)
            else:
                average, parts = split_item(row, self._recipe, self._recipe.splitter)
                documents = _taken(parts, room)
                if not documents[-1].is_last_chunk and not self._is_superseded(row):
                    return _LongItem(row, average, documents, parts)
                documents = documents if average is None else [average, *documents]
        except ItemError as error:
            self._reject(Reject.of(row, stage=error.stage, detail=error.detail))
            self._ignored += IgnoredFields.of(row)
            return None
        self.read += 1
        self._ignored += IgnoredFields.of(row)
        if not self._is_superseded(row):
            # Taken out first, so that the last row of an id also stands at the last row's place.
            earlier = self._items.pop(row.object_id, None)
            if earlier is not None:
                self._earlier.setdefault(row.object_id, []).append(earlier)
            self._items[row.object_id] = documents
            self.size += sum(document.size for document in documents)
            self._count += len(documents)
        return None

    def _reject(self, reject: Reject) -> None:
        self.read += 1
        self._rejects.append(reject)
        self.size += size_of(reject.payload) + size_of(reject.item_info) + len(reject.line or "")

    def batch(self, number: int) -> Batch:
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
    """An item of more parts than fit into one batch."""

    item: Item
    average: Document | None
    first: Sequence[Document]
    rest: Iterator[Document]

    def batches(self, pace: Pace, numbers: Iterator[int], *, before: Position, after: Position) -> Iterator[Batch]:
        """Yields its batches; after a crash in between, reading goes on before the item."""
        documents = self.first
        mean = () if self.average is None else (self.average,)
        ignored = IgnoredFields.of(self.item)
        try:
            while not documents[-1].is_last_chunk:
                yield _batch_of((*mean, *documents), next(numbers), read=0, after=before, goes_on=True)
                documents = _taken(self.rest, pace.rows)
        except ItemError as error:
            reject = Reject.of(self.item, stage=error.stage, detail=error.detail)
            yield _batch_of((), next(numbers), rejects=(reject,), read=1, after=after, ignored=ignored)
        else:
            yield _batch_of((*mean, *documents), next(numbers), read=1, after=after, ignored=ignored)


def _batch_of(
    documents: tuple[Document, ...],
    number: int,
    *,
    rejects: tuple[Reject, ...] = (),
    read: int,
    after: Position,
    goes_on: bool = False,
    ignored: IgnoredFields = NOTHING_IGNORED,
) -> Batch:
    return Batch(
        number=number,
        documents=documents,
        rejects=rejects,
        read=read,
        duplicate=0,
        after=after,
        goes_on=goes_on,
        ignored=ignored,
    )


def _taken(parts: Iterator[Document], room: int) -> list[Document]:
    """Takes the next parts of an item, as many as fit into a batch."""
    taken: list[Document] = []
    size = 0
    for part in parts:
        taken.append(part)
        size += part.size
        if len(taken) >= room or size >= MAX_SIZE:
            break
    return taken
