"""Compared batches -> embedded batches: new and changed texts get their vectors.

The cost follows padded tokens, so texts are taken in the order of their length and in micro-batches of a small budget.
Python threads share one session with one intra-op thread: onnxruntime releases the GIL, and its own threads would spin
while they wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from upsert_cli.bisect import failing_rows
from upsert_cli.documents.document import Document
from upsert_cli.embedding.embedder import PROBE_TEXT, Effort, Embedder, check_vectors
from upsert_cli.errors import Stage, UpsertCliError
from upsert_cli.limits import limit_reached
from upsert_cli.pipeline.batch import Batch
from upsert_cli.pipeline.prefetch import StageStopped
from upsert_cli.redaction import error_line
from upsert_cli.store.base import Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from upsert_cli.store.base import Vector, Vectors

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


class EmbeddedTexts:
    """The different texts of one batch, and their vectors once they are embedded."""

    def __init__(self, texts: Iterable[str], embedder: Embedder, stopping: threading.Event) -> None:
        """Count the tokens of each text; `stopping` ends the work between two micro-batches."""
        self._embedder = embedder
        self._stopping = stopping
        different = list(dict.fromkeys(texts))
        self._lengths = dict(zip(different, embedder.count(different), strict=True))
        self.vectors: dict[str, Vector] = {}
        self.faults: dict[str, str] = {}
        """By text, one line of reason why the model gives no vector."""

    @property
    def tokens(self) -> int:
        """The number of tokens, without those beyond the model's limit."""
        return sum(min(length, self._embedder.max_tokens) for length in self._lengths.values())

    def is_truncated(self, text: str) -> bool:
        """Return whether the model cuts a text at its limit."""
        return self._lengths[text] > self._embedder.max_tokens

    def embed(self, pool: ThreadPoolExecutor, effort: Effort) -> None:
        """Embed all texts in micro-batches, the longest texts first, so that no thread is left alone with them.

        Raises:
            UpsertCliError: The model fails on any text, for example for lack of memory.
        """
        micro_batches = iter(list(self._micro_batches(effort.budget)))
        lock = threading.Lock()

        def embed_next() -> None:
            while not self._stopping.is_set():
                with lock:
                    micro_batch = next(micro_batches, None)
                if micro_batch is None:
                    return
                self._embed(micro_batch)

        for done in [pool.submit(embed_next) for _ in range(effort.threads)]:
            done.result()

    def _micro_batches(self, budget: int) -> Iterator[list[str]]:
        micro_batch: list[str] = []
        longest = 0
        for text in sorted(self._lengths, key=self._lengths.__getitem__, reverse=True):
            if not micro_batch:
                longest = min(self._lengths[text], self._embedder.max_tokens)
            micro_batch.append(text)
            if (len(micro_batch) + 1) * longest > budget:
                yield micro_batch
                micro_batch = []
        if micro_batch:
            yield micro_batch

    def _embed(self, micro_batch: list[str]) -> None:
        failing = failing_rows(micro_batch, self._store, is_data_fault=_blames_a_text)
        if failing:
            self._check_model(*failing[0])
        self.faults |= {text: error_line(error, with_class=True) for text, error in failing}

    def _store(self, texts: Sequence[str]) -> None:
        self.vectors.update(zip(texts, self._vectors_of(list(texts)), strict=True))

    def _vectors_of(self, texts: list[str]) -> Vectors:
        return check_vectors(self._embedder.embed(texts), texts=len(texts), dimension=self._embedder.dimension)

    def _check_model(self, accused: str, error: BaseException) -> None:
        """Raise unless a harmless text as long as the accused one gets a vector; otherwise no text is to blame."""
        tokens = min(self._lengths[accused], self._embedder.max_tokens)
        try:
            self._vectors_of([" ".join([PROBE_TEXT] * (tokens // 2 + 1))])
        except Exception as also:  # noqa: BLE001  # any error on a harmless text is the model's
            raise limit_reached(also, by_words=True) or _model_failed(also) from error


def _blames_a_text(error: BaseException) -> bool:
    """Return whether one of the texts may have caused an error: any error but the machine's."""
    return isinstance(error, Exception) and not isinstance(error, MemoryError | OSError)


def _model_failed(error: BaseException) -> UpsertCliError:
    reason = error_line(error, with_class=True)
    return UpsertCliError(
        message=f"the model fails on every text ({reason}); check whether memory is short, then restart the task"
    )
