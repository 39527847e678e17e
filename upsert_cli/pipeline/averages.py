"""The vectors of an item's parts -> their normalised mean, also where the parts come in several batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from upsert_cli.pipeline.batches import Batch
from upsert_cli.store.base import Comparison, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Sum: TypeAlias = NDArray[np.float64]
    Vector: TypeAlias = NDArray[np.float32]


class Averages:
    """The means in the making; only an item of more than one batch outlasts its batch."""

    def __init__(self) -> None:
        """Knows no part yet."""
        self._sums: dict[str, Sum] = {}

    @staticmethod
    def wanted(batch: Batch, comparison: Comparison) -> dict[str, int]:
        """Returns the items of which the mean is to be written, and its place in the batch."""
        return {
            document.item.object_id: row
            for row, document in enumerate(batch.documents)
            if document.is_average and comparison.verdicts[row] in (Verdict.NEW, Verdict.TEXT)
        }

    def add(self, batch: Batch, wanted: Mapping[str, int], vectors: Mapping[int, Vector]) -> dict[int, Vector]:
        """Adds the vectors of a batch's parts, and returns those of the means that are due, by their places.

        Args:
            batch: All parts of its items, unless an item goes on in the next.
            wanted: As `wanted` returned it.
            vectors: By place, of the parts that have one; an item with a part that has none gets no mean.
        """
        due: dict[int, Vector] = {}
        for row, document in enumerate(batch.documents):
            object_id = document.item.object_id
            if object_id not in wanted or document.is_average:
                continue
            if document.is_first_chunk:
                self._sums[object_id] = _zeros()
            if row not in vectors:
                self._sums.pop(object_id, None)
            elif object_id in self._sums:
                self._sums[object_id] = self._sums[object_id] + vectors[row]
            if document.is_last_chunk and (total := self._sums.pop(object_id, None)) is not None:
                due[wanted[object_id]] = _normalised(total)
        return due


def _zeros() -> Sum:
    import numpy as np

    return np.zeros(1)


def _normalised(total: Sum) -> Vector:
    import numpy as np

    length = float(np.linalg.norm(total))
    return (total / length if length else total).astype(np.float32)
