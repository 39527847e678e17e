"""A batch: the rows that go through the stages together, and the results of each stage."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from upsert_cli.documents.document import Document
from upsert_cli.documents.hashing import as_stored
from upsert_cli.sources.item import Item, Position, Reject
from upsert_cli.store.base import Comparison, Verdict, WriteBatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector: TypeAlias = NDArray[np.float32]

MAX_NAMES = 20  # names of ignored fields in a message


@dataclass(frozen=True, slots=True)
class IgnoredFields:
    """Extra fields of rows in item form, which are not stored: the number of such rows, and the fields' names."""

    rows: int = 0
    names: Mapping[str, None] = field(default_factory=dict)
    """The first names, in the order of their first row."""

    @classmethod
    def of(cls, item: Item) -> IgnoredFields:
        """Return the extra fields of one item."""
        return cls(1, dict.fromkeys(item.ignored)) if item.ignored else NOTHING_IGNORED

    def __add__(self, other: IgnoredFields) -> IgnoredFields:
        if not other.rows:
            return self
        names = {**self.names, **other.names} if other.names.keys() - self.names.keys() else self.names
        return IgnoredFields(self.rows + other.rows, dict.fromkeys(itertools.islice(names, MAX_NAMES + 1)))

    def warning(self) -> str | None:
        """Return a warning of one line, or None if no row has extra fields."""
        if not self.rows:
            return None
        names = ", ".join(f"`{name}`" for name in itertools.islice(self.names, MAX_NAMES))
        more = ", ..." if len(self.names) > MAX_NAMES else ""
        rows = "1 row in item form has" if self.rows == 1 else f"{self.rows:,} rows in item form have"
        return f"{rows} fields that are not stored: {names}{more}; put the fields of an item into its payload"


NOTHING_IGNORED = IgnoredFields()
NOT_COMPARED = Comparison(verdicts=[])


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A run of consecutive rows, each of them checked; only the last row of a repeated id is left."""

    number: int
    """Counts from 0 in one attempt."""

    documents: tuple[Document, ...] = ()
    """One for each id, in the order of their rows; the average of an item comes before its chunks."""

    rejects: tuple[Reject, ...] = ()
    """Rows that are no loadable items."""

    read: int
    """Rows: items + `len(rejects)` + `duplicate`; 0 if the chunks of an item continue in the next batch."""

    duplicate: int = 0
    """Rows that a later row with the same id replaced, in this batch or in an earlier attempt."""

    after: Position
    """Where to continue once this batch is committed."""

    goes_on: bool = False
    """The chunks of its item continue in the next batch, with which the row is committed."""

    ignored: IgnoredFields = NOTHING_IGNORED

    earlier: Mapping[str, tuple[Sequence[Document], ...]] = field(default_factory=dict)
    """By id, the items that a later row of this batch replaced, in the order of their rows."""

    comparison: Comparison = NOT_COMPARED
    """How the documents compare with the collection, from the second stage on."""

    failed: Mapping[str, Reject] = field(default_factory=dict)
    """By id, the items that a stage could not load; later stages write nothing of them."""

    vectors: Mapping[int, Vector] = field(default_factory=dict)
    """Float32, by the index in `documents` of each record to write with its vector, from the third stage on."""

    truncated: int = 0
    """Texts that were cut at the model's limit."""

    embedding_seconds: float = 0.0
    """Wall seconds."""

    writing_seconds: float = 0.0
    """Wall seconds."""

    @property
    def rows(self) -> int:
        """Return the number of records to write or of rows read, the larger of both."""
        return max(self.read, len(self.documents))

    @property
    def is_unchanged(self) -> bool:
        """Check that there is nothing to write: each document is in the collection, just as it is."""
        return not self.failed and self.comparison.verdicts.count(Verdict.UNCHANGED) == len(self.documents)

    def fallback(self) -> Batch | None:
        """Return a batch with the previous row of each id that could not be loaded, or None.

        These rows were counted as duplicates, so that the counts of both batches together are those of all rows.
        """
        if not self.earlier:
            return None
        loaded = {document.item.object_id for document in self.documents}.difference(self.failed)
        chosen = [object_id for object_id in self.earlier if object_id not in loaded]
        if not chosen:
            return None
        return Batch(
            number=self.number,
            documents=tuple(itertools.chain.from_iterable(self.earlier[one][-1] for one in chosen)),
            read=0,
            duplicate=-len(chosen),
            after=self.after,
            earlier={one: self.earlier[one][:-1] for one in chosen if self.earlier[one][:-1]},
        )

    def upserts(self) -> WriteBatch:
        """Return the records to write with their vectors."""
        import numpy as np

        return self._records([*self.vectors], np.stack([*self.vectors.values()]) if self.vectors else None)

    def updates(self) -> WriteBatch:
        """Return the records whose metadata alone changed."""
        rows = [
            row
            for row, (document, verdict) in enumerate(zip(self.documents, self.comparison.verdicts, strict=True))
            if verdict is Verdict.METADATA
            and document.item.object_id not in self.failed
            and (not self.goes_on or not document.is_average)  # the average is written with the last chunk
        ]
        return self._records(rows, None)

    def embedded_items(self) -> set[str]:
        """Return the ids of the items with an embedded text; an item with its own vector is not one of them."""
        documents = [self.documents[row] for row in self.vectors]
        return {document.item.object_id for document in documents if document.vector is None}

    def new_ids(self) -> set[str]:
        """Return the ids of the items without a record in the collection when the batch was compared."""
        pairs = zip(self.documents, self.comparison.verdicts, strict=True)
        known = {document.item.object_id for document, verdict in pairs if verdict is not Verdict.NEW}
        return {document.item.object_id for document in self.documents} - known

    def _records(self, rows: Sequence[int], vectors: NDArray[np.float32] | None) -> WriteBatch:
        documents = [self.documents[row] for row in rows]
        stored = [self.comparison.stored_keys.get(row, ()) for row in rows]
        return WriteBatch(
            ids=[document.id for document in documents],
            texts=[document.text if document.has_text else None for document in documents],
            # Chroma merges metadata; a value of None removes a key that the item no longer has.
            metadatas=[
                dict.fromkeys(keys) | as_stored(document.metadata)
                for document, keys in zip(documents, stored, strict=True)
            ],
            vectors=vectors,
        )
