"""Texts -> vectors: the different texts of a batch, embedded in micro-batches by several threads.

The cost follows padded tokens, so texts are taken in the order of their length and in micro-batches of a small budget.
Python threads share one session with one intra-op thread: onnxruntime releases the GIL, and its own threads would spin
while they wait.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from upsert_cli.bisect import failing_rows
from upsert_cli.embedding.embedder import PROBE_TEXT, Effort, Embedder, check_vectors
from upsert_cli.errors import UpsertCliError
from upsert_cli.limits import limit_reached
from upsert_cli.redaction import error_line

if TYPE_CHECKING:
    from upsert_cli.store.base import Vector, Vectors


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
