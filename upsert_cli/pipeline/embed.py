"""Compared batches -> embedded batches: new and changed texts get their vectors.

The cost follows padded tokens, so texts are taken in the order of their length and in micro-batches of a small budget.
Python threads share one session with one intra-op thread: onnxruntime releases the GIL, and its own threads would spin
while they wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from upsert_cli.bisect import failing_rows
from upsert_cli.documents.document import Document
from upsert_cli.embedding.embedder import PROBE_TEXT, Effort, Embedder, check_vectors
from upsert_cli.errors import Stage, UpsertCliError
from upsert_cli.limits import limit_reached
from upsert_cli.pipeline.averages import Averages
from upsert_cli.pipeline.batches import Batch
from upsert_cli.pipeline.compare import ComparedBatch
from upsert_cli.pipeline.embedded_batch import EmbeddedBatch
from upsert_cli.pipeline.prefetch import StageStopped
from upsert_cli.redaction import error_line
from upsert_cli.sources.item import Reject
from upsert_cli.store.base import Comparison, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]


def embed(
    batches: Iterator[ComparedBatch], *, load: Callable[[], Embedder], effort: Effort, stopping: threading.Event
) -> Iterator[EmbeddedBatch]:
    """Yield each batch with the vectors of its new and changed texts.

    Args:
        batches: Batches in the order of their rows.
        load: Returns the embedder; called when the first text needs it, so an unchanged file needs no model.
        effort: Number and size of the micro-batches that are embedded at the same time.
        stopping: Ends the work between two micro-batches; the batch is dropped.

    Raises:
        EmbedderUnusable: The model cannot be loaded.
        UpsertCliError: The model fails on any text, for example for lack of memory.
    """
    averages = Averages()
    with ThreadPoolExecutor(effort.threads, thread_name_prefix="embed") as pool:
        for compared in batches:
            batch = compared.batch
            due = averages.wanted(batch, compared.comparison)
            rows = tuple(_rows_to_embed(compared, due))
            asked = tuple(row for row in rows if batch.documents[row].vector is None)
            embedded = EmbeddedBatch(batch=batch, comparison=compared.comparison)
            if asked:
                embedder = load()
                began = time.monotonic()
                texts = _Texts(batch, asked, embedder, stopping)
                texts.embed(pool, effort)
                if stopping.is_set():
                    raise StageStopped
                embedded = texts.result(compared.comparison, seconds=time.monotonic() - began)
            embedded = _with_own_vectors(embedded, [row for row in rows if batch.documents[row].vector is not None])
            if due:
                embedded = _with_averages(embedded, due, averages)
            yield _whole_items(embedded) if embedded.rejects else embedded


def _rows_to_embed(compared: ComparedBatch, due: Mapping[str, int]) -> Iterator[int]:
    """Yield the indexes of documents whose vectors are needed: all chunks of an item whose average is due."""
    for row, (document, verdict) in enumerate(zip(compared.batch.documents, compared.comparison.verdicts, strict=True)):
        if not document.is_average and (verdict in (Verdict.NEW, Verdict.TEXT) or document.item.object_id in due):
            yield row


def _with_own_vectors(embedded: EmbeddedBatch, rows: Sequence[int]) -> EmbeddedBatch:
    """Add the documents that have a vector of their own."""
    if not rows:
        return embedded
    import numpy as np

    own = np.stack([np.asarray(embedded.batch.documents[row].vector, dtype=np.float32) for row in rows])
    vectors = own if embedded.vectors is None else np.concatenate([embedded.vectors, own])
    return replace(embedded, rows=(*embedded.rows, *rows), vectors=vectors)


def _with_averages(embedded: EmbeddedBatch, wanted: Mapping[str, int], averages: Averages) -> EmbeddedBatch:
    """Add the averages that are due, and remove chunks that were embedded only for them."""
    import numpy as np

    vectors = {} if embedded.vectors is None else dict(zip(embedded.rows, embedded.vectors, strict=True))
    due = averages.add(embedded.batch, wanted, vectors)
    verdicts = embedded.comparison.verdicts
    written = {row: vectors[row] for row in embedded.rows if verdicts[row] in (Verdict.NEW, Verdict.TEXT)} | due
    return replace(embedded, rows=tuple(written), vectors=np.stack(list(written.values())) if written else None)


def _whole_items(embedded: EmbeddedBatch) -> EmbeddedBatch:
    """Remove all chunks of an item if one of them could not be embedded; the item is rejected once."""
    failed = {(reject.source, reject.row): reject for reject in reversed(embedded.rejects)}
    documents = embedded.batch.documents
    kept = [
        place
        for place, row in enumerate(embedded.rows)
        if (documents[row].item.source, documents[row].item.row) not in failed
    ]
    return replace(
        embedded,
        rows=tuple(embedded.rows[place] for place in kept),
        vectors=None if embedded.vectors is None else embedded.vectors[kept],
        rejects=tuple(reversed(failed.values())),
    )


class _Texts:
    """The texts of one batch and their vectors."""

    def __init__(self, batch: Batch, rows: tuple[int, ...], embedder: Embedder, stopping: threading.Event) -> None:
        import numpy as np

        self._batch = batch
        self._rows = rows
        self._embedder = embedder
        self._stopping = stopping
        # A text that occurs in the batch more than once is embedded once.
        self._places: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            self._places.setdefault(batch.documents[row].text, []).append(place)
        self._lengths = dict(zip(self._places, embedder.count(list(self._places)), strict=True))
        self._vectors = np.zeros((len(rows), embedder.dimension), dtype=np.float32)
        self._failed: dict[int, str] = {}

    def embed(self, pool: ThreadPoolExecutor, effort: Effort) -> None:
        """Embed all texts in micro-batches, the longest texts first, so that no thread is left alone with them."""
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
        for text in sorted(self._places, key=self._lengths.__getitem__, reverse=True):
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
        for text, error in failing:
            for place in self._places[text]:
                self._failed[place] = error_line(error, with_class=True)

    def _check_model(self, accused: str, error: BaseException) -> None:
        """Raise unless a harmless text as long as the accused one gets a vector; otherwise no text is to blame."""
        tokens = min(self._lengths[accused], self._embedder.max_tokens)
        try:
            self._vectors_of([" ".join([PROBE_TEXT] * (tokens // 2 + 1))])
        except Exception as also:  # noqa: BLE001  # any error on a harmless text is the model's
            raise limit_reached(also, by_words=True) or _model_failed(also) from error

    def _vectors_of(self, texts: list[str]) -> Vectors:
        return check_vectors(self._embedder.embed(texts), texts=len(texts), dimension=self._embedder.dimension)

    def _store(self, texts: Sequence[str]) -> None:
        for text, vector in zip(texts, self._vectors_of(list(texts)), strict=True):
            for place in self._places[text]:
                self._vectors[place] = vector

    def result(self, comparison: Comparison, *, seconds: float) -> EmbeddedBatch:
        good = [place for place in range(len(self._rows)) if place not in self._failed]
        limit = self._embedder.max_tokens
        return EmbeddedBatch(
            batch=self._batch,
            comparison=comparison,
            rows=tuple(self._rows[place] for place in good),
            vectors=self._vectors[good] if self._failed else self._vectors,
            truncated=sum(self._lengths[self._batch.documents[self._rows[place]].text] > limit for place in good),
            rejects=tuple(
                _reject(self._batch.documents[self._rows[place]], detail)
                for place, detail in sorted(self._failed.items())
            ),
            seconds=seconds,
        )


def _reject(document: Document, detail: str) -> Reject:
    where = f"{document.id}: " if document.chunk is not None else ""
    return Reject.of(document.item, stage=Stage.INFERENCE, detail=f"{where}{detail}")


def _blames_a_text(error: BaseException) -> bool:
    """Return whether one of the texts may have caused an error: any error but the machine's."""
    return isinstance(error, Exception) and not isinstance(error, MemoryError | OSError)


def _model_failed(error: BaseException) -> UpsertCliError:
    reason = error_line(error, with_class=True)
    return UpsertCliError(
        message=f"the model fails on every text ({reason}); check whether memory is short, then restart the task"
    )
