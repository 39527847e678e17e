"""The models that can be named, and the default one, which is known without importing fastembed's list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from upsert_cli.errors import UsageFault

if TYPE_CHECKING:
    from upsert_cli.embedding.custom import GivenFolder, Postprocessing

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
NO_MODEL = "none"  # in place of a model's name: the items bring their vectors
MAX_TOKENS = 256  # of the default model: the checkpoint's max_seq_length, and the limit of Chroma's default function
SIMILAR_NAMES = 3  # suggested when a name is unknown


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
    max_tokens: int | None = None
    """In the list of models: from the files if they are cached, otherwise from the description, if that names it."""

    cached: bool = False
    postprocessing: Postprocessing | None = None
    """How vectors are made of the output of a model that fastembed does not list; None for one that it lists."""

    def as_json(self) -> dict[str, Any]:
        """Return the model's line in the list of models."""
        names = ("name", "dimension", "max_tokens", "size_gb", "license", "description", "cached")
        return {name: getattr(self, name) for name in names}

    @property
    def is_static(self) -> bool:
        """Check that the model is a table of vectors, without a network."""
        return self.weights[0].endswith(".safetensors")

    @property
    def files(self) -> tuple[str, ...]:
        """Return everything that the model's folder must hold."""
        return (*self.weights, "tokenizer.json", *(() if self.is_static else ("tokenizer_config.json",)))


# The default model is usually in the cache, and importing fastembed takes a second.
DEFAULT_ENTRY = ModelEntry(
    name=DEFAULT_MODEL, dimension=384, repository="Qdrant/all-MiniLM-L6-v2-onnx", weights=("model.onnx",)
)


def embeds(name: str) -> bool:
    """Check that a name stands for a model, and not for the vectors of the items."""
    return name.lower() != NO_MODEL


def full_name(name: str, *, given: GivenFolder | None = None) -> str:
    """Return a model's name as the list spells it; `none` needs no list.

    Raises:
        UsageFault: fastembed has no dense text model of that name.
        UpsertCliError: It has none, and the given folder is not that of a model.
    """
    return find_entry(name, given=given).name if embeds(name) else NO_MODEL


def find_entry(name: str, *, given: GivenFolder | None = None) -> ModelEntry:
    """Return the model of a name, in any case of letters; a given folder may hold one that fastembed does not list.

    Raises:
        UsageFault: fastembed has no dense text model of that name.
        UpsertCliError: It has none, and the given folder is not that of a model.
    """
    if not embeds(name):
        raise UsageFault(message="none is not a model: `run --model none` loads items with the vectors that they bring")
    entry = DEFAULT_ENTRY if name.lower() == DEFAULT_MODEL.lower() else _listed(name, given)
    if entry.postprocessing is None and given is not None and given.is_explicit:
        raise UsageFault(
            message=f"--pooling and --no-normalize are for models that fastembed does not list, and it has {entry.name}"
        )
    return entry


def _listed(name: str, given: GivenFolder | None) -> ModelEntry:
    from upsert_cli.embedding.fastembed import other_kind, supported_models

    known = {entry.name.lower(): entry for entry in supported_models()}
    if name.lower() in known:
        return known[name.lower()]
    if (kind := other_kind(name)) is not None:
        raise UsageFault(
            message=f"{name!r} is {kind}, and only dense text models can be loaded; `upsert-cli models list` lists them"
        )
    if given is not None:
        from upsert_cli.embedding.custom import custom_entry

        return custom_entry(name, given)
    import difflib

    # Compared without the organisation, which people leave out or mistake.
    names = {full.rpartition("/")[2]: entry.name for full, entry in known.items()}
    similar = difflib.get_close_matches(name.lower().rpartition("/")[2], names, n=SIMILAR_NAMES)
    question = f"did you mean {' or '.join(names[each] for each in similar)}? " if similar else ""
    raise UsageFault(
        message=f"fastembed has no text model named {name!r}; {question}`upsert-cli models list` lists all of them; "
        f"another model needs --model-path, with the folder of its files"
    )
