"""The seam to the libraries that compute vectors: everyone else sees the `Embedder` that `load_model` returns.

Another library takes a module with an implementation, a line in `load_model` and an extra in setup.cfg.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from upsert_cli.errors import UpsertCliError, UsageFault

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from upsert_cli.embedding.catalog import GivenFolder
    from upsert_cli.embedding.identity import Model, OwnVectors

    Vectors: TypeAlias = NDArray[np.float32]

Device: TypeAlias = Literal["cpu", "cuda"]
Precision: TypeAlias = Literal["fp32", "bf16"]

TOKEN_BUDGET = 512  # padded tokens a micro-batch; of 256 to 8,192 it takes the least CPU (tests/bench, constants)
BF16_TOKEN_BUDGET = 1_024  # padded tokens; 5 % less CPU than 512, as much as 2,048 (tests/bench, constants)
CUDA_TOKEN_BUDGET = 32_768  # padded tokens, 128 texts of 256; not measured, since a GPU wants few large calls
PROBE_TEXT = "hello world"  # any model can embed it


class Embedder(Protocol):
    """A loaded model."""

    dimension: int
    max_tokens: int
    """The tokens of a text that the model reads, including the special tokens."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each document with its prefix, including those beyond the limit."""

    def count_query(self, text: str) -> int:
        """Count the tokens of a search text with its prefix."""

    def embed(self, texts: list[str]) -> Vectors:
        """Embed one micro-batch of documents with their prefix: float32, `(len(texts), dimension)`.

        Several threads may call this at once.
        """

    def embed_query(self, text: str) -> Vectors:
        """Embed a search text with its prefix: float32, `(1, dimension)`."""


def check_vectors(vectors: Vectors, *, texts: int, dimension: int) -> Vectors:
    """Return the vectors of an embedder if each text has one with finite numbers and the right dimension.

    Raises:
        ValueError: The shape is wrong, or a number is not finite.
    """
    import numpy as np

    if vectors.shape != (texts, dimension):
        raise ValueError(f"the model gave vectors of shape {vectors.shape}, not {(texts, dimension)}")
    if not np.isfinite(vectors).all():
        raise ValueError("the model gave a vector that is not finite")
    return vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """The amount of text that is embedded at the same time."""

    threads: int
    """Micro-batches that are embedded at the same time."""

    budget: int
    """The most tokens of a micro-batch, including padding."""

    @classmethod
    def fitting(
        cls, device: Device, *, precision: Precision, threads: int | None = None, budget: int | None = None
    ) -> Effort:
        """Return the values that the user chose, or the best ones for the device and the precision."""
        if device == "cuda":  # one call at a time keeps a GPU busy, and more of them share its memory
            return cls(threads=threads or 1, budget=budget or CUDA_TOKEN_BUDGET)
        usual = BF16_TOKEN_BUDGET if precision == "bf16" else TOKEN_BUDGET
        return cls(threads=threads or usable_processors(), budget=budget or usual)


def usable_processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_model(
    model: Model | OwnVectors, *, device: Device = "cpu", precision: Precision = "fp32", threads: int | None = None
) -> Embedder:
    """Load a model, which takes about a second of CPU.

    Args:
        model: A model whose files are on this machine.
        device: The device to compute on.
        precision: Of the network's products; the vectors of both precisions are comparable.
        threads: Calls of `embed` at the same time, by default one per processor; only bf16 uses the number.

    Raises:
        Refusal: This machine cannot compute in bf16.
        UpsertCliError: The files cannot be loaded, the device cannot be used, or memory or open files run out.
    """
    from upsert_cli.embedding.fastembed import FastEmbedder
    from upsert_cli.embedding.identity import Model
    from upsert_cli.embedding.openvino import OpenVinoSession, require_bf16

    if not isinstance(model, Model):
        raise TypeError("an item without a vector reached the embedder, although no model is used")
    session = None
    if precision == "bf16":
        require_bf16()
        session = OpenVinoSession(model.network, threads=threads or usable_processors())
    try:
        embedder = FastEmbedder(model, on_gpu=device == "cuda", session=session)
        check_vectors(embedder.embed([PROBE_TEXT]), texts=1, dimension=model.dimension)
    except UpsertCliError:
        raise
    except Exception as error:  # onnxruntime and tokenizers raise classes of their own, and bare ones
        raise model.not_loadable(error) from error
    return embedder


def require_precision(precision: Precision, model: str, *, given: GivenFolder | None = None, here: bool = True) -> None:
    """Check that a model can be computed in a precision, before anything is read or written.

    Args:
        precision: The precision that the user asks for.
        model: The name of a model.
        given: The folder that the user names for the model.
        here: Whether this machine computes the vectors.

    Raises:
        UsageFault: The model has no network, or is unknown.
        Refusal: This machine cannot compute in bf16.
    """
    if precision == "fp32":
        return
    from upsert_cli.embedding.catalog import embeds
    from upsert_cli.embedding.models import find_entry
    from upsert_cli.embedding.openvino import require_bf16

    if not embeds(model):
        raise UsageFault(message="--precision bf16 goes with a model, and --model none embeds nothing")
    if find_entry(model, given=given).is_static:
        raise UsageFault(
            message=f"--precision bf16 is for models with a network, and {model} is a table of vectors; use "
            "--precision fp32"
        )
    if here:
        require_bf16()


def require_device(device: Device, model: str, *, given: GivenFolder | None = None) -> None:
    """Check that a model can be computed on a device, before anything is read or written; see `require_precision`.

    Raises:
        UsageFault: The model has no network for a GPU to compute.
    """
    if device == "cpu":
        return
    from upsert_cli.embedding.catalog import embeds
    from upsert_cli.embedding.models import find_entry

    if embeds(model) and find_entry(model, given=given).is_static:
        raise UsageFault(
            message=f"--device cuda is for models with a network, and {model} is a table of vectors; use --device cpu"
        )


class Loader:
    """Loads a model once, when it is needed or ahead of that in a thread."""

    def __init__(self, load: Callable[[], Embedder]) -> None:
        self._load = load
        self._begun: Future[Embedder] | None = None
        self._loaded: Embedder | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start to load in a thread, whose error `embedder` raises."""
        from concurrent.futures import ThreadPoolExecutor  # 3 ms, which every command would pay

        pool = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._begun = pool.submit(self._load)
        pool.shutdown(wait=False)

    def embedder(self) -> Embedder:
        """Return the loaded model; any thread may call this."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load() if self._begun is None else self._begun.result()
            return self._loaded
