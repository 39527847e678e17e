"""Compared batches -> embedded batches: new and changed texts get their vectors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from upsert_cli.documents.document import Document
from upsert_cli.embedding.embedder import Effort, Embedder
from upsert_cli.errors import Stage
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.micro_batches import EmbeddedTexts
from upsert_cli.pipeline.prefetch import StageStopped
from upsert_cli.store.base import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from upsert_cli.store.base import Vector

    Sum: TypeAlias = NDArray[np.float64]

WITH_VECTOR = (Verdict.NEW, Verdict.TEXT)  # verdicts on records that are written with their vectors


def embed(
    batches: Iterator[Batch],
    *,
    load: Callable[[], Embedder],
    effort: Effort,
    stopping: threading.Event | None = None,
) -> Iterator[Batch]:
    """Yield each batch with the vectors of its new and changed texts.

    Args:
        batches: Batches in the order of their rows.
        load: Returns the embedder; called at the first text, so an unchanged file needs no model.
        effort: The number and the size of the micro-batches that are embedded at the same time.
        stopping: Set by any thread to end the work between two micro-batches; the batch is dropped.

    Raises:
        StageStopped: `stopping` was set.
        UpsertCliError: The model cannot be loaded, or it fails on any text, for example for lack of memory.
    """
    stopping = stopping or threading.Event()
    sums: dict[str, Sum] = {}
    with ThreadPoolExecutor(effort.threads, thread_name_prefix="embed") as pool:
        for batch in batches:
            if batch.is_unchanged:
                yield batch
                continue
            averages = _averages_to_write(batch)
            asked, own = _rows_with_vectors(batch, averages)
            embedded = batch
            if asked:
                embedder = load()
                began = time.monotonic()
                texts = EmbeddedTexts((batch.documents[row].text for row in asked), embedder, stopping)
                texts.embed(pool, effort)
                if stopping.is_set():
                    raise StageStopped
                embedded = replace(_with_vectors(batch, asked, texts), embedding_seconds=time.monotonic() - began)
            vectors = {**embedded.vectors, **_own_vectors(batch, own)}
            if averages:
                vectors = _with_averages(batch, vectors, averages, sums)
            if embedded.failed:  # an item is loaded with all of its chunks or not at all
                items = {row: batch.documents[row].item.object_id for row in vectors}
                vectors = {row: vector for row, vector in vectors.items() if items[row] not in embedded.failed}
            yield replace(embedded, vectors=vectors)


def seconds_a_token(documents: Sequence[Document], embedder: Embedder, effort: Effort) -> float:
    """Embed some documents, and return how long a token took, in seconds."""
    began = time.monotonic()
    with ThreadPoolExecutor(effort.threads) as pool:
        texts = EmbeddedTexts((document.text for document in documents), embedder, threading.Event())
        texts.embed(pool, effort)
        return (time.monotonic() - began) / max(1, texts.tokens)


def _averages_to_write(batch: Batch) -> dict[str, int]:
    """Return, by item id, the index in the batch of each average that has to be written."""
    return {
        document.item.object_id: row
        for row, document in enumerate(batch.documents)
        if document.is_average and _needs_vector(batch, row)
    }


def rows_to_embed(batch: Batch) -> list[int]:
    """Return the indexes of the documents of a compared batch that a model has to embed."""
    return _rows_with_vectors(batch, _averages_to_write(batch))[0]


def _rows_with_vectors(batch: Batch, averages: Mapping[str, int]) -> tuple[list[int], list[int]]:
    """Return the indexes of the documents to embed, and of those that bring their vectors.

    Both include the chunks of each item whose average is written.
    """
    asked, own = list[int](), list[int]()
    for row, document in enumerate(batch.documents):
        if not document.is_average and (document.item.object_id in averages or _needs_vector(batch, row)):
            (asked if document.vector is None else own).append(row)
    return asked, own


def _needs_vector(batch: Batch, row: int) -> bool:
    return batch.comparison.verdicts[row] in WITH_VECTOR and batch.documents[row].item.object_id not in batch.failed


def _own_vectors(batch: Batch, rows: Sequence[int]) -> dict[int, Vector]:
    """Return the vectors that items brought, by index."""
    if not rows:
        return {}
    import numpy as np

    return {row: np.asarray(batch.documents[row].vector, dtype=np.float32) for row in rows}


def _with_averages(
    batch: Batch, vectors: Mapping[int, Vector], averages: Mapping[str, int], sums: dict[str, Sum]
) -> dict[int, Vector]:
    """Return the vectors to write: with the normalized averages of chunks, without vectors needed only for these.

    Args:
        batch: A batch with all chunks of its items, unless an item continues in the next batch.
        vectors: The vectors by index; an item gets no average if a chunk has no vector.
        averages: By item id, the index of each average to write.
        sums: The sums of the vectors of items that continue in the next batch, by item id; changed here.
    """
    import numpy as np

    due: dict[int, Vector] = {}
    for row, document in enumerate(batch.documents):
        object_id = document.item.object_id
        if object_id not in averages or document.is_average:
            continue
        before = sums.pop(object_id, None)
        if document.is_first_chunk:
            before = np.zeros(1)
        if row not in vectors or before is None:
            continue
        total = before + vectors[row]
        if document.is_last_chunk:
            length = float(np.linalg.norm(total))
            due[averages[object_id]] = (total / length if length else total).astype(np.float32)
        else:
            sums[object_id] = total
    return {row: vector for row, vector in vectors.items() if _needs_vector(batch, row)} | due


def _with_vectors(batch: Batch, rows: Sequence[int], texts: EmbeddedTexts) -> Batch:
    """Return a batch with the vectors of some rows, and a reject for each item with a text that has no vector."""
    vectors: dict[int, Vector] = {}
    faults: list[tuple[Document, str]] = []
    for row in rows:
        document = batch.documents[row]
        if (vector := texts.vectors.get(document.text)) is not None:
            vectors[row] = vector
        else:
            where = f"{document.id}: " if document.number is not None else ""
            faults.append((document, f"{where}{texts.faults[document.text]}"))
    truncated = sum(texts.is_truncated(batch.documents[row].text) for row in vectors)
    return replace(batch.rejecting(faults, Stage.INFERENCE), vectors=vectors, truncated=truncated)
