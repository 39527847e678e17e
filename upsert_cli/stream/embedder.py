"""The model, loaded: texts -> vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from upsert_cli.errors import EmbedderUnusable

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]

PROBE_TEXT = "hello world"  # that any model can embed
PREFIX_CHARACTERS = 16  # characters of a text looked at for each token of the limit; English has about 4.5 a token
REASON_CHARACTERS = 500  # characters of an error's message; onnxruntime's may repeat whole inputs


class Embedder(Protocol):
    """What turns texts into vectors."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Counts the tokens of each text, those beyond the limit included."""

    def embed(self, texts: list[str]) -> Vectors:
        """Embeds one micro-batch: float32, `(len(texts), dimension)`. Called from several threads at once."""

    max_tokens: int
    dimension: int


class FastEmbedder:
    """A model loaded by fastembed, with one session for all threads."""

    def __init__(self, name: str, folder: Path, *, dimension: int, max_tokens: int) -> None:
        """Loads the model from `folder`; takes about a second of CPU.

        Raises:
            EmbedderUnusable: The files are there, but onnxruntime or the tokenizer cannot use them.
        """
        self.dimension = dimension
        self.max_tokens = max_tokens
        try:
            from fastembed import TextEmbedding

            self._embedding = TextEmbedding(name, specific_model_path=str(folder), threads=1, cuda=False)
            self._tokenizer = self._prepare_tokenizer()
            checked(self.embed([PROBE_TEXT]), texts=1, dimension=dimension)
        except Exception as error:  # onnxruntime and tokenizers raise classes of their own, and bare ones
            raise EmbedderUnusable(model=name, folder=str(folder), reason=one_line(error)) from error

    def _prepare_tokenizer(self) -> Any:
        """Sets the limit explicitly, since sources differ in it, and returns a copy that neither cuts nor pads."""
        own = getattr(self._embedding.model, "tokenizer", None)
        if own is None:
            return None
        from tokenizers import Tokenizer

        own.enable_truncation(max_length=self.max_tokens)
        counting = Tokenizer.from_str(own.to_str())
        counting.no_truncation()
        counting.no_padding()
        return counting

    def count(self, texts: Sequence[str]) -> list[int]:
        """Counts the tokens of each text, those beyond the limit included.

        Of a long text only a prefix is tokenized: where that alone exceeds the limit, the rest changes nothing.
        """
        if self._tokenizer is None:
            return [min(len(text) // 4 + 2, self.max_tokens) for text in texts]
        prefix = PREFIX_CHARACTERS * self.max_tokens
        lengths = [len(encoding) for encoding in self._tokenizer.encode_batch_fast([text[:prefix] for text in texts])]
        for place, text in enumerate(texts):
            if len(text) > prefix and lengths[place] <= self.max_tokens:
                lengths[place] = len(self._tokenizer.encode(text))
        return lengths

    def embed(self, texts: list[str]) -> Vectors:
        """Embeds one micro-batch."""
        import numpy as np

        return np.asarray(list(self._embedding.embed(texts, batch_size=len(texts))), dtype=np.float32)


def checked(vectors: Vectors, *, texts: int, dimension: int) -> Vectors:
    """Returns vectors if they are what was asked for.

    Raises:
        ValueError: Their number or their length is another, or one holds a number that is not finite.
    """
    import numpy as np

    if vectors.shape != (texts, dimension):
        raise ValueError(f"the model gave vectors of shape {vectors.shape}, not {(texts, dimension)}")
    if not np.isfinite(vectors).all():
        raise ValueError("the model gave a vector that is not finite")
    return vectors


def usable_threads() -> int:
    """Returns how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_line(error: BaseException) -> str:
    """Returns an error's message as one line that is not too long."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:REASON_CHARACTERS]
