"""A model as a list describes it, and the default one, which has to be known without the list."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = (
    256  # of the default model: the checkpoint's own max_seq_length, and the limit of Chroma's default function
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """A dense text model as fastembed's list describes it."""

    name: str
    dimension: int
    repository: str | None
    """Its name on the model hub, such as `Qdrant/all-MiniLM-L6-v2-onnx`."""

    weights: tuple[str, ...]
    """Files, relative to the model's folder: `onnx/model.onnx`, `onnx/model.onnx_data`."""

    size_gb: float = 0.0
    license: str = ""
    description: str = ""

    @property
    def is_static(self) -> bool:
        """Tells whether the model is a table of vectors, without a network."""
        return self.weights[0].endswith(".safetensors")

    @property
    def files(self) -> tuple[str, ...]:
        """Returns all that the folder of the model must hold."""
        return (*self.weights, "tokenizer.json", *(() if self.is_static else ("tokenizer_config.json",)))


# Known here too, since the default model is mostly in the cache, and fastembed takes a second to import.
DEFAULT_ENTRY = ModelEntry(
    name=DEFAULT_MODEL, dimension=384, repository="Qdrant/all-MiniLM-L6-v2-onnx", weights=("model.onnx",)
)
