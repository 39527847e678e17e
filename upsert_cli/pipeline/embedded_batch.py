"""A batch whose texts have their vectors: the records to write, and the documents that could not be embedded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from upsert_cli.documents.hashing import as_stored
from upsert_cli.pipeline.batches import Batch
from upsert_cli.sources.item import Reject
from upsert_cli.store.base import Comparison, Verdict, WriteBatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedBatch:
    """A batch with everything that writing it needs."""

    batch: Batch
    comparison: Comparison

    rows: tuple[int, ...] = ()
    """Indexes in `batch.documents` of the documents that `vectors` belongs to."""

    vectors: Vectors | None = None
    """Float32, `(len(rows), dimension)`; None if there are none."""

    truncated: int = 0
    """Texts that were cut at the model's limit."""

    rejects: tuple[Reject, ...] = ()
    """Items that the model could not embed."""

    seconds: float = 0.0
    """Wall seconds that embedding took."""

    def upserts(self) -> WriteBatch:
        """Return the records to write with their vectors."""
        return self._records(self.rows, self.vectors)

    def updates(self) -> WriteBatch:
        """Return the records whose metadata alone changed."""
        failed = {(reject.source, reject.row) for reject in self.rejects}
        rows = [
            row
            for row, (document, verdict) in enumerate(zip(self.batch.documents, self.comparison.verdicts, strict=True))
            if verdict is Verdict.METADATA
            and (document.item.source, document.item.row) not in failed
            and (not self.batch.goes_on or not document.is_average)  # the average is written with the last chunk
        ]
        return self._records(rows, None)

    def embedded_items(self) -> set[str]:
        """Return the ids of the items with an embedded text; an item with its own vector is not one of them."""
        documents = [self.batch.documents[row] for row in self.rows]
        return {document.item.object_id for document in documents if document.vector is None}

    def new_ids(self) -> set[str]:
        """Return the ids of the items of which the collection held no record when the batch was compared."""
        pairs = zip(self.batch.documents, self.comparison.verdicts, strict=True)
        known = {document.item.object_id for document, verdict in pairs if verdict is not Verdict.NEW}
        return {document.item.object_id for document in self.batch.documents} - known

    def _records(self, rows: Sequence[int], vectors: Vectors | None) -> WriteBatch:
        documents = [self.batch.documents[row] for row in rows]
        stale = [self.comparison.stale_keys[row] for row in rows]
        return WriteBatch(
            ids=[document.id for document in documents],
            texts=[document.text for document in documents],
            # Chroma merges metadata; a value of None removes a key that the item no longer has.
            metadatas=[
                as_stored(document.metadata) | dict.fromkeys(keys)
                for document, keys in zip(documents, stale, strict=True)
            ],
            vectors=vectors,
        )


class ItemCounter:
    """A counter of items whose text was embedded; an item longer than a batch counts with its last batch."""

    def __init__(self) -> None:
        self._unfinished: set[str] = set()

    def count(self, embedded: EmbeddedBatch) -> int:
        """Return the number of items that end in the next batch."""
        items = embedded.embedded_items() | self._unfinished
        self._unfinished = items if embedded.batch.goes_on else set()
        return 0 if embedded.batch.goes_on else len(items)
