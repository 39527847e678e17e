"""Batch -> embedded Batch: the texts that changed get their vectors, ordered by length inside.

Cost follows padded tokens, so texts are taken in the order of their length and in micro-batches of a small budget, by
Python threads that share one session with one intra-op thread: onnxruntime releases the GIL, and threads of its own
would spin while they wait.
"""

from __future__ import annotations

import threading
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
from upsert_cli.pipeline.compare import Plan
from upsert_cli.pipeline.embedded_batch import Embedded
from upsert_cli.redaction import error_line
from upsert_cli.sources.item import Reject
from upsert_cli.store.base import Comparison, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]


def embed_batches(
    plans: Iterator[Plan],
    *,
    load: Callable[[], Embedder],
    effort: Effort,
    ending: threading.Event,
    clock: Callable[[], float],
) -> Iterator[Embedded]:
    """Yields each batch with the vectors of its new and changed texts.

    Args:
        plans: Batches that were compared.
        load: Makes the embedder, once, when the first text needs it: an unchanged file needs none.
        effort: How much is embedded at the same time.
        ending: Ends the work between two micro-batches; the batch is then dropped.
        clock: Seconds, monotonic.

    Raises:
        UpsertCliError: The model cannot be loaded, or fails on every text, for lack of memory for example.
    """
    embedder: Embedder | None = None
    averages = Averages()
    with ThreadPoolExecutor(effort.threads, thread_name_prefix="embed") as pool:
        for plan in plans:
            means = averages.wanted(plan.batch, plan.comparison)
            rows = tuple(_to_embed(plan, means))
            asked = tuple(row for row in rows if plan.batch.documents[row].vector is None)
            if asked and embedder is None:
                embedder = load()
            began = clock()
            embedded = _nothing_to_embed(plan)
            if asked and embedder is not None:
                work = _BatchWork(plan.batch, asked, embedder, ending)
                work.run(pool, effort)
                if ending.is_set():
                    return
                embedded = work.result(plan.comparison, seconds=clock() - began)
            embedded = _with_own_vectors(
                embedded, [row for row in rows if plan.batch.documents[row].vector is not None]
            )
            embedded = _with_means(embedded, means, averages) if means else embedded
            yield _whole_items(embedded) if embedded.rejects else embedded


def _to_embed(plan: Plan, means: Mapping[str, int]) -> Iterator[int]:
    """Yields the places of documents whose vectors are needed: all parts of an item with a mean that is due."""
    for row, (document, verdict) in enumerate(zip(plan.batch.documents, plan.comparison.verdicts, strict=True)):
        if not document.is_average and (
            verdict in (Verdict.NEW, Verdict.TEXT) or (means and document.item.object_id in means)
        ):
            yield row


def _with_own_vectors(embedded: Embedded, rows: Sequence[int]) -> Embedded:
    """Adds the documents that brought a vector to those that were embedded."""
    if not rows:
        return embedded
    import numpy as np

    own = np.stack([np.asarray(embedded.batch.documents[row].vector, dtype=np.float32) for row in rows])
    vectors = own if embedded.vectors is None else np.concatenate([embedded.vectors, own])
    return replace(embedded, rows=(*embedded.rows, *rows), vectors=vectors)


def _with_means(embedded: Embedded, means: Mapping[str, int], averages: Averages) -> Embedded:
    """Adds the means that are due, and takes out the parts that were embedded for them alone."""
    import numpy as np

    vectors = {} if embedded.vectors is None else dict(zip(embedded.rows, embedded.vectors, strict=True))
    due = averages.add(embedded.batch, means, vectors)
    verdicts = embedded.comparison.verdicts
    written = {row: vectors[row] for row in embedded.rows if verdicts[row] in (Verdict.NEW, Verdict.TEXT)} | due
    return replace(embedded, rows=tuple(written), vectors=np.stack(list(written.values())) if written else None)


def _whole_items(embedded: Embedded) -> Embedded:
    """Takes out the parts of items of which another part could not be embedded, each rejected once."""
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


def _nothing_to_embed(plan: Plan) -> Embedded:
    return Embedded(
        batch=plan.batch,
        comparison=plan.comparison,
        rows=(),
        vectors=None,
        truncated=0,
        rejects=(),
        seconds=0.0,
    )


class _BatchWork:
    """The texts of one batch on their way through the model."""

    def __init__(self, batch: Batch, rows: tuple[int, ...], embedder: Embedder, ending: threading.Event) -> None:
        import numpy as np

        self._batch = batch
        self._rows = rows
        self._embedder = embedder
        self._ending = ending
        # A text that stands in the batch more than once is embedded once.
        self._places: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            self._places.setdefault(batch.documents[row].text, []).append(place)
        self._lengths = dict(zip(self._places, embedder.count(list(self._places)), strict=True))
        self._vectors = np.zeros((len(rows), embedder.dimension), dtype=np.float32)
        self._failed: dict[int, str] = {}

    def run(self, pool: ThreadPoolExecutor, effort: Effort) -> None:
        """Embeds all texts, micro-batch by micro-batch; the longest first, so that no thread ends with them alone."""
        micro_batches = iter(list(self._micro_batches(effort.budget)))
        lock = threading.Lock()

        def work_off() -> None:
            while not self._ending.is_set():
                with lock:
                    micro_batch = next(micro_batches, None)
                if micro_batch is None:
                    return
                self._embed(micro_batch)

        for done in [pool.submit(work_off) for _ in range(effort.threads)]:
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
            self._make_sure_of_the_model(*failing[0])
        for text, error in failing:
            for place in self._places[text]:
                self._failed[place] = error_line(error)

    def _make_sure_of_the_model(self, accused: str, error: BaseException) -> None:
        """Raises unless a harmless text as long as the accused one gets a vector: else no text is to blame."""
        tokens = min(self._lengths[accused], self._embedder.max_tokens)
        try:
            self._vectors_of([" ".join([PROBE_TEXT] * (tokens // 2 + 1))])
        except Exception as also:  # noqa: BLE001  # whatever it is, it is not the fault of a text
            raise limit_reached(also, by_words=True) or _failed(also) from error

    def _vectors_of(self, texts: list[str]) -> Vectors:
        return check_vectors(self._embedder.embed(texts), texts=len(texts), dimension=self._embedder.dimension)

    def _store(self, texts: Sequence[str]) -> None:
        for text, vector in zip(texts, self._vectors_of(list(texts)), strict=True):
            for place in self._places[text]:
                self._vectors[place] = vector

    def result(self, comparison: Comparison, *, seconds: float) -> Embedded:
        good = [place for place in range(len(self._rows)) if place not in self._failed]
        limit = self._embedder.max_tokens
        return Embedded(
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


def _failed(error: Exception) -> UpsertCliError:
    return UpsertCliError(
        message=f"the model fails on every text ({error_line(error)}); check whether memory is short, then restart the "
        "task"
    )


def _blames_a_text(error: BaseException) -> bool:
    """Tells whether an error may come from one of the texts: all but those of the machine."""
    return isinstance(error, Exception) and not isinstance(error, MemoryError | OSError)
