"""The stamp by which a collection names the model that made it, and the check that ours may write to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from upsert_cli.errors import Refusal
from upsert_cli.store.base import CollectionInfo, Target

STAMP_MODEL = "upsert_cli_model"
STAMP_DIMENSION = "upsert_cli_dimension"
STAMP_MAX_TOKENS = "upsert_cli_max_tokens"
STAMP_VERSION = "upsert_cli_version"
# The names under which Chroma stores its default function, the one that our default model equals.
_DEFAULT_FUNCTIONS = ("default", "onnx_mini_lm_l6_v2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The facts about an existing collection."""

    metadata: Mapping[str, Any]
    dimension: int | None
    """Of the vectors in it; None while there are none."""

    configuration: Mapping[str, Any]
    """As Chroma stores it: `{"hnsw": {...}, "embedding_function": {"name": "default", "config": {}}}`."""

    @property
    def is_ours(self) -> bool:
        """Whether this tool made it."""
        return STAMP_MODEL in self.metadata

    @property
    def sync_threshold(self) -> int | None:
        """Rows after which Chroma writes the index files; None for another kind of index."""
        value = (self.configuration.get("hnsw") or {}).get("sync_threshold")
        return value if isinstance(value, int) else None


def info_of(name: str, dimension: int | None, stamp: Mapping[str, Any], *configurations: object) -> CollectionInfo:
    """Return what a collection says about itself.

    Args:
        name: Of the collection.
        dimension: Of its vectors; None while it is empty.
        stamp: Its metadata.
        configurations: Whatever Chroma stores about its index and its embedding function.
    """
    return CollectionInfo(
        name=name,
        dimension=dimension,
        model=str(stamp[STAMP_MODEL]) if STAMP_MODEL in stamp else None,
        stamped_dimension=_number(stamp.get(STAMP_DIMENSION)),
        max_tokens=_number(stamp.get(STAMP_MAX_TOKENS)),
        default_function=_function_in(*configurations) in _DEFAULT_FUNCTIONS,
    )


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


def _function_in(*configurations: object) -> str:
    """Return the name of the embedding function, wherever it stands in what is stored of a collection, or ""."""
    for value in configurations:
        if not isinstance(value, dict):
            continue
        function = value.get("embedding_function")
        if isinstance(function, dict) and function.get("name"):
            return str(function["name"])
        if found := _function_in(*value.values()):
            return found
    return ""


def stamp(target: Target) -> dict[str, str | int]:
    """Return the metadata that names the model of a new collection."""
    return {
        STAMP_MODEL: target.model,
        STAMP_DIMENSION: target.dimension,
        STAMP_MAX_TOKENS: target.max_tokens,
        STAMP_VERSION: target.tool_version,
    }


def check_model(target: Target, described: Described) -> tuple[str, ...]:
    """Refuse a collection that was made with another model, and return warnings where that is not known.

    Raises:
        Refusal: Its stamp or its stored embedding function names another model, or its vectors have another length.
    """
    if described.is_ours:
        _check_stamp(target, described.metadata)
    if described.dimension not in (None, target.dimension):
        raise dimension_mismatch(target, had=described.dimension or 0, asked=target.dimension)
    return () if described.is_ours else _check_stored_function(target, described)


def _check_stamp(target: Target, metadata: Mapping[str, Any]) -> None:
    for key, what, asked in (
        (STAMP_MODEL, "model", target.model),
        (STAMP_DIMENSION, "dimension", target.dimension),
        (STAMP_MAX_TOKENS, "token limit", target.max_tokens),
    ):
        if key in metadata and metadata[key] != asked:
            raise _mismatch(target, what=what, had=str(metadata[key]), asked=str(asked))


def _check_stored_function(target: Target, described: Described) -> tuple[str, ...]:
    function = described.configuration.get("embedding_function") or {}
    name = function.get("name")
    if name is None:
        return (
            f"the collection {target.collection} in {target.path} was not made by this tool and does not say with "
            f"which model; its records and those of this load answer queries together only if that was {target.model}",
        )
    if name in _DEFAULT_FUNCTIONS:
        if not target.default_model:
            raise _mismatch(target, what="model", had="of Chroma's default embedding function", asked=target.model)
        return ()
    config = function.get("config") or {}
    had = config.get("model_name") or config.get("model") or f"of the embedding function {name}"
    if _short(str(had)) != _short(target.model):
        raise _mismatch(target, what="model", had=str(had), asked=target.model)
    return ()


def _short(model: str) -> str:
    """Return a model's name without its maker, since sentence-transformers are named with and without it."""
    return model.rpartition("/")[2].lower()


def dimension_mismatch(target: Target, *, had: int, asked: int) -> Refusal:
    """Return the error for vectors that do not fit into a collection."""
    return Refusal(
        message=f"the collection {target.collection} in {target.path} holds vectors of {had} numbers, and "
        f"{target.model} gives {asked}; choose the --model it was made with, or another --collection"
    )


def _mismatch(target: Target, *, what: str, had: str, asked: str) -> Refusal:
    return Refusal(
        message=f"the collection {target.collection} in {target.path} was made with the {what} {had}, not {asked}; "
        f"load with that, or into another --collection"
    )
