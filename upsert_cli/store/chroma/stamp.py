"""The stamp by which a collection names the model that made it, and the check that ours may write to it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from upsert_cli.embedding.catalog import DEFAULT_ENTRY, NO_MODEL, embeds
from upsert_cli.errors import Refusal
from upsert_cli.store.base import CollectionInfo, Target

STAMP_MODEL = "upsert_cli_model"
STAMP_DIMENSION = "upsert_cli_dimension"
STAMP_MAX_TOKENS = "upsert_cli_max_tokens"
STAMP_VERSION = "upsert_cli_version"
# The names under which Chroma stores its default function, the one that our default model equals.
_DEFAULT_FUNCTIONS = ("default", "onnx_mini_lm_l6_v2")


def stamp(target: Target) -> dict[str, str | int]:
    """Return the metadata that names the model of a new collection; without a model, only the tool is named."""
    if not embeds(target.model):
        return {STAMP_VERSION: target.tool_version}
    return {
        STAMP_MODEL: target.model,
        STAMP_DIMENSION: target.dimension,
        STAMP_MAX_TOKENS: target.max_tokens,
        STAMP_VERSION: target.tool_version,
    }


def info_of(name: str, dimension: int | None, metadata: Mapping[str, Any], *configurations: object) -> CollectionInfo:
    """Return the description that a collection gives of itself.

    The metadata has the stamp; the configurations are everything that Chroma stores about index and embedding function.
    """
    function = _function_in(*configurations)
    config, function_name = function.get("config") or {}, function.get("name")
    function_model = config.get("model_name") or config.get("model")
    ours = NO_MODEL if STAMP_VERSION in metadata else None
    return CollectionInfo(
        name=name,
        dimension=dimension,
        model=str(metadata[STAMP_MODEL]) if STAMP_MODEL in metadata else ours,
        stamped_dimension=_number(metadata.get(STAMP_DIMENSION)),
        max_tokens=_number(metadata.get(STAMP_MAX_TOKENS)),
        default_function=function_name in _DEFAULT_FUNCTIONS,
        function=str(function_model or f"of the embedding function {function_name}") if function_name else None,
    )


def _number(value: Any) -> int | None:
    with suppress(ValueError, TypeError):
        return int(value)
    return None


def _function_in(*configurations: object) -> Mapping[str, Any]:
    """Return the embedding function, wherever it stands in the stored configurations; empty without one."""
    for value in configurations:
        if not isinstance(value, dict):
            continue
        function = value.get("embedding_function")
        if isinstance(function, dict) and function.get("name"):
            return function
        if found := _function_in(*value.values()):
            return found
    return {}


def check_model(target: Target, info: CollectionInfo) -> tuple[str, ...]:
    """Refuse a collection that was made with another model, and return warnings where that is not known.

    Raises:
        Refusal: Its stamp or its stored embedding function names another model, or its vectors have another length.
    """
    if info.model not in (None, target.model):
        raise _other_model(target, had=info.model or "")
    for what, had, asked in (
        ("dimension", info.stamped_dimension, target.dimension),
        ("token limit", info.max_tokens, target.max_tokens),
    ):
        if had not in (None, asked):
            raise _mismatch(target, what=what, had=str(had), asked=str(asked))
    if info.dimension not in (None, target.dimension):
        raise dimension_mismatch(target, had=info.dimension or 0, asked=target.dimension)
    if info.model is not None:
        return ()
    # Chroma's client stores its default function where no other is named, also with vectors that are not its own.
    is_unused = info.default_function and info.dimension not in (None, DEFAULT_ENTRY.dimension)
    if info.function is None or (is_unused and not embeds(target.model)):
        return (
            f"the collection {target.collection} in {target.path} was not made by this tool and does not say with "
            f"which model; its records and those of this load answer queries together only if that was "
            f"{target.model if embeds(target.model) else 'the model of their vectors'}",
        )
    if info.default_function and not target.default_model:
        raise _other_model(target, had="of Chroma's default embedding function")
    if not info.default_function and _short(info.function) != _short(target.model):
        raise _other_model(target, had=info.function)
    return ()


def _short(model: str) -> str:
    """Return a model's name without its maker, since sentence-transformers are named with and without it."""
    return model.rpartition("/")[2].lower()


def dimension_mismatch(target: Target, *, had: int, asked: int) -> Refusal:
    """Return the error for vectors that do not fit into a collection."""
    gives, remedy = f"{target.model} gives", "the --model it was made with, or another --collection"
    if not embeds(target.model):
        gives, remedy = "the items bring", "another --collection"
    return Refusal(
        message=f"the collection {target.collection} in {target.path} holds vectors of {had} numbers, and "
        f"{gives} {asked}; choose {remedy}"
    )


def _other_model(target: Target, *, had: str) -> Refusal:
    """Return the error for vectors of a model in a collection of another one, or of none that is known."""
    collection = f"the collection {target.collection} in {target.path}"
    if not embeds(had):
        what = f"holds the vectors that its items brought (--model {NO_MODEL}), not those of {target.model}"
    elif not embeds(target.model):
        what = f"was made with the model {had}, and --model {NO_MODEL} does not say which model its vectors come from"
    else:
        return _mismatch(target, what="model", had=had, asked=target.model)
    return Refusal(message=f"{collection} {what}; load with that, or into another --collection")


def _mismatch(target: Target, *, what: str, had: str, asked: str) -> Refusal:
    return Refusal(
        message=f"the collection {target.collection} in {target.path} was made with the {what} {had}, not {asked}; "
        f"load with that, or into another --collection"
    )
