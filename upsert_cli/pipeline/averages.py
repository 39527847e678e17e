"""Normalised averages of the vectors of an item's chunks, which may come in several batches."""

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
    """The sums of chunk vectors so far; only an item of more than one batch outlasts its batch."""

    def __init__(self) -> None:
        self._sums: dict[str, Sum] = {}

    @staticmethod
    def wanted(batch: Batch, comparison: Comparison) -> dict[str, int]:
        """Return, by item, the index in the batch of each average that has to be written."""
        return {
            document.item.object_id: row
            for row, document in enumerate(batch.documents)
            if document.is_average and comparison.verdicts[row] in (Verdict.NEW, Verdict.TEXT)
        }

    def add(self, batch: Batch, wanted: Mapping[str, int], vectors: Mapping[int, Vector]) -> dict[int, Vector]:
        """Add the vectors of a batch's chunks, and return the averages that are due, by index.

        Args:
            batch: All chunks of its items, unless an item continues in the next batch.
            wanted: The result of `wanted`.
            vectors: By index; an item with a chunk without a vector gets no average.
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
