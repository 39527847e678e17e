"""The model, loaded: texts -> vectors."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from upsert_cli.embedding.cache import is_in_cache
from upsert_cli.errors import DeviceUnusable, EmbedderUnusable, UpsertCliError
from upsert_cli.lean_imports import lean_imports
from upsert_cli.limits import limit_reached

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]

Device: TypeAlias = Literal["cpu", "cuda"]

TOKEN_BUDGET = 512  # padded tokens a micro-batch; least CPU a text between 256 and 8,192 (tests/bench, constants)
CUDA_TOKEN_BUDGET = 32_768  # padded tokens, 128 texts of 256; not measured: a GPU wants few large calls
PROBE_TEXT = "hello world"  # that any model can embed
PREFIX_CHARACTERS = 16  # characters of a text looked at for each token of the limit; English has about 4.5 a token
BEGINNING = 2  # times the limit in tokens, that are enough of a text: a cut in a word moves no token before the limit
GPU_PROVIDER = "CUDAExecutionProvider"
REASON_CHARACTERS = 500  # characters of an error's message; onnxruntime's may repeat whole inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much of a batch is embedded at the same time."""

    threads: int
    """Micro-batches."""

    budget: int
    """Padded tokens of a micro-batch."""

    @classmethod
    def fitting(cls, device: Device, *, threads: int | None = None, budget: int | None = None) -> Effort:
        """Returns what is best for a device, but for what the user chose."""
        if device == "cuda":  # one call at a time keeps a GPU busy; more only share its memory
            return cls(threads=threads or 1, budget=budget or CUDA_TOKEN_BUDGET)
        return cls(threads=threads or usable_threads(), budget=budget or TOKEN_BUDGET)


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

    def __init__(self, name: str, folder: Path, *, dimension: int, max_tokens: int, device: Device = "cpu") -> None:
        """Loads the model from `folder`; takes about a second of CPU.

        Raises:
            DeviceUnusable: The GPU that is asked for cannot be used.
            EmbedderUnusable: The files are there, but onnxruntime or the tokenizer cannot use them.
        """
        self.dimension = dimension
        self.max_tokens = max_tokens
        if device == "cuda":
            _require_gpu()
        try:
            with lean_imports():
                from fastembed import TextEmbedding

            self._embedding = TextEmbedding(name, specific_model_path=str(folder), threads=1, cuda=device == "cuda")
            self._tokenizer = self._prepare_tokenizer()
            checked(self.embed([PROBE_TEXT]), texts=1, dimension=dimension)
        except Exception as error:  # onnxruntime and tokenizers raise classes of their own, and bare ones
            raise _unusable(name, folder, error) from error
        session = getattr(self._embedding.model, "model", None)
        # Where the GPU's libraries do not fit, onnxruntime warns and goes on with the processor, many times slower.
        if device == "cuda" and session is not None and GPU_PROVIDER not in session.get_providers():
            raise DeviceUnusable(reason="onnxruntime fell back to the processor")

    def _prepare_tokenizer(self) -> Any:
        """Sets the limit explicitly, since sources differ in it, and returns a copy that neither cuts nor pads."""
        own = getattr(self._embedding.model, "tokenizer", None)
        if own is None:
            return None
        from tokenizers import Tokenizer

        own.enable_truncation(max_length=self.max_tokens)
        return _counting(Tokenizer.from_str(own.to_str()))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Counts the tokens of each text; of one that is far too long just enough to see that it is.

        To count them all would cost 0.7 s and 800 MB for a text of 7 MB.
        """
        if self._tokenizer is None:
            return [min(len(text) // 4 + 2, self.max_tokens) for text in texts]
        lengths = [
            len(encoding) for encoding in self._tokenizer.encode_batch_fast([text[: self._prefix] for text in texts])
        ]
        for place, text in enumerate(texts):
            if len(text) > self._prefix and lengths[place] < BEGINNING * self.max_tokens:
                lengths[place] = len(self._tokenizer.encode(self._beginning(text)))
        return lengths

    @property
    def _prefix(self) -> int:
        return PREFIX_CHARACTERS * self.max_tokens

    def _beginning(self, text: str) -> str:
        """Returns so much of a text that its vector is that of the whole; left alone, the tokenizer reads all of it.

        What this changes is the last word, and the model stops reading half-way.
        """
        characters = self._prefix
        if self._tokenizer is None:
            return text
        while characters < len(text) and not self._is_enough(text[:characters]):
            characters *= 2
        return text[:characters]

    def _is_enough(self, beginning: str) -> bool:
        """Tells whether a beginning has twice the tokens that the model reads."""
        tokens = BEGINNING * self.max_tokens
        # A word of letters and digits is a token at least; to count these costs a twentieth of tokenizing.
        return sum(map(str.isalnum, beginning.split())) >= tokens or len(self._tokenizer.encode(beginning)) >= tokens

    def embed(self, texts: list[str]) -> Vectors:
        """Embeds one micro-batch."""
        import numpy as np

        texts = [self._beginning(text) for text in texts]
        return np.asarray(list(self._embedding.embed(texts, batch_size=len(texts))), dtype=np.float32)

    def embed_query(self, text: str) -> Vectors:
        """Embeds a text to look for, which some models do in another way: float32, `(1, dimension)`."""
        import numpy as np

        vectors = np.asarray(list(self._embedding.query_embed([self._beginning(text)])), dtype=np.float32)
        return checked(vectors, texts=1, dimension=self.dimension)


class Loader:
    """Loads a model once: in a thread, begun before it is needed, or when it is needed."""

    def __init__(self, load: Callable[[], Embedder]) -> None:
        """Loads nothing yet."""
        self._load = load
        self._begun: Future[Embedder] | None = None
        self._loaded: Embedder | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Loads it in a thread from now on; what goes wrong is raised to whoever needs it."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._begun = pool.submit(self._load)
        pool.shutdown(wait=False)

    def embedder(self) -> Embedder:
        """Returns the model, once it is loaded; may be called in any thread."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load() if self._begun is None else self._begun.result()
            return self._loaded


def load_tokenizer(folder: Path) -> Any:
    """Returns the tokenizer of a model, which neither cuts nor pads.

    Raises:
        EmbedderUnusable: The model's files have none that can be loaded.
    """
    from fastembed.common.preprocessor_utils import load_tokenizer

    try:
        tokenizer, _ = load_tokenizer(folder)
    except Exception as error:  # tokenizers raises bare ones
        raise _unusable("tokenizer", folder, error) from error
    return _counting(tokenizer)


def _unusable(model: str, folder: Path, error: Exception) -> UpsertCliError:
    if (limit := limit_reached(error, by_words=True)) is not None:
        return limit
    return EmbedderUnusable(model=model, folder=str(folder), reason=one_line(error), cached=is_in_cache(folder))


def _counting(tokenizer: Any) -> Any:
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _require_gpu() -> None:
    import onnxruntime

    if GPU_PROVIDER not in onnxruntime.get_available_providers():
        raise DeviceUnusable(reason="the onnxruntime that is installed has no CUDA")


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
