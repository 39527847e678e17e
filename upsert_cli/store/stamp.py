"""The stamp by which a collection names its model, and the check that another model may not write to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from upsert_cli.embedding.catalog import NO_MODEL, Prefixes, embeds
from upsert_cli.embedding.identity import CHROMAS_DEFAULT, ModelIdentity, Weights
from upsert_cli.errors import Refusal
from upsert_cli.store.target import CollectionInfo, Target

STAMP_MODEL = "upsert_cli_model"
STAMP_DIMENSION = "upsert_cli_dimension"
STAMP_MAX_TOKENS = "upsert_cli_max_tokens"
STAMP_PASSAGE_PREFIX = "upsert_cli_passage_prefix"
STAMP_QUERY_PREFIX = "upsert_cli_query_prefix"
STAMP_POOLING = "upsert_cli_pooling"
STAMP_WEIGHTS = "upsert_cli_weights"
STAMP_VERSION = "upsert_cli_version"


def stamp(target: Target) -> dict[str, str | int]:
    """Return the metadata that names the model of a new collection, or only the tool if there is no model."""
    model = target.model
    if not embeds(model.name):
        return {STAMP_VERSION: target.tool_version}
    known: dict[str, str | int] = {
        STAMP_MODEL: model.name,
        STAMP_DIMENSION: model.dimension,
        STAMP_MAX_TOKENS: model.max_tokens,
        STAMP_PASSAGE_PREFIX: model.prefixes.passage,
        STAMP_QUERY_PREFIX: model.prefixes.query,
        STAMP_POOLING: model.pooling,
        STAMP_WEIGHTS: "" if model.weights is None else str(model.weights),
        STAMP_VERSION: target.tool_version,
    }
    return {key: value for key, value in known.items() if value}


def stamped(metadata: Mapping[str, Any]) -> ModelIdentity | None:
    """Return the model in a collection's stamp, or None; stamps of older versions have no prefixes and weights."""
    if STAMP_MODEL not in metadata:
        ours = STAMP_VERSION in metadata
        return ModelIdentity(name=NO_MODEL, dimension=0, max_tokens=0) if ours else None
    weights = metadata.get(STAMP_WEIGHTS)
    return ModelIdentity(
        name=str(metadata[STAMP_MODEL]),
        dimension=_number(metadata.get(STAMP_DIMENSION)),
        max_tokens=_number(metadata.get(STAMP_MAX_TOKENS)),
        prefixes=Prefixes(str(metadata.get(STAMP_PASSAGE_PREFIX, "")), str(metadata.get(STAMP_QUERY_PREFIX, ""))),
        pooling=str(metadata.get(STAMP_POOLING, "")),
        weights=Weights.parsed(weights) if isinstance(weights, str) else None,
    )


def _number(value: Any) -> int:
    with suppress(ValueError, TypeError):
        return int(value)
    return 0


def check_model(target: Target, info: CollectionInfo) -> tuple[str, ...]:
    """Check that the target's model made a collection, and return warnings if that is not known.

    Raises:
        Refusal: The stamp or the stored embedding function names another model, or the vectors have another length.
    """
    model = target.model
    if info.stamp is not None:
        _refuse(target, info.stamp.differences(model))
    if info.dimension not in (None, model.dimension):
        raise dimension_mismatch(target, had=info.dimension or 0, asked=model.dimension)
    unknown = _unknown_model(target, info) if info.stamp is None else _unknown_weights(target, info.stamp)
    return (*_other_space(target, info), *_own_vectors(target, info), *unknown)


def _own_vectors(target: Target, info: CollectionInfo) -> Iterator[str]:
    """Yield a warning if copied vectors of a named function meet vectors of items, whose model is not known."""
    if target.function and info.stamp is not None and not embeds(info.stamp.name) and info.dimension is not None:
        yield (
            f"the collection {target.collection} in {target.path} does not say which model made its vectors, and the "
            f"source names {target.function}; both answer queries together only if that was the model"
        )


def _other_space(target: Target, info: CollectionInfo) -> Iterator[str]:
    """Yield a warning if copied vectors get into a collection with another distance."""
    if target.space and info.space and target.space != info.space:
        yield (
            f"the collection {target.collection} in {target.path} measures distances as {info.space}, and the source "
            f"as {target.space}; queries of the copy may give another order"
        )


def _unknown_weights(target: Target, made_by: ModelIdentity) -> tuple[str, ...]:
    """Return a warning if the user's own weights meet a collection whose stamp has no weights."""
    weights = target.model.weights
    if made_by.weights is not None or weights is None or weights.is_published or not embeds(made_by.name):
        return ()
    return (
        f"the collection {target.collection} in {target.path} does not say with which weights of {made_by.name} it was "
        f"made; its records and those of this load answer queries together only if they are those of --model-path",
    )


def _unknown_model(target: Target, info: CollectionInfo) -> tuple[str, ...]:
    """Refuse another program's collection if its embedding function contradicts the model; else return warnings."""
    model = target.model
    if info.function is None or (info.default_function and info.named_model is None):
        return (
            f"the collection {target.collection} in {target.path} was not made by this tool and does not say with "
            f"which model; its records and those of this load answer queries together only if that was "
            f"{target.function or (model.name if embeds(model.name) else 'the model of their vectors')}",
        )
    if info.default_function:
        if model.name != CHROMAS_DEFAULT.name:
            _refuse(target, [("model", "of Chroma's default embedding function", model.name)])
        _refuse(target, CHROMAS_DEFAULT.differences(model))
    elif _short(info.function) != _short(target.function or model.name):
        _refuse(target, [("model", info.function, model.name)])
    elif target.function is None:  # such a function adds no prefixes, and loads a listed model by its name
        weights = None if model.pooling else Weights("", is_published=True)
        named = ModelIdentity(name=model.name, dimension=0, max_tokens=0, pooling=model.pooling, weights=weights)
        _refuse(target, named.differences(model))
    return ()


def _refuse(target: Target, differences: Iterable[tuple[str, str, str]]) -> None:
    """Raise a `Refusal` for the first difference from the model that made a collection, if there is one."""
    where = f"the collection {target.collection} in {target.path}"
    for what, had, asked in differences:
        remedy = "load with that, or into another --collection"
        if what == "weights":
            fault = f"the weights of {target.model.name} differ from those that made {where}"
            remedy = "give --model-path the folder with those weights, or load into another --collection"
        elif what == "prefixes":
            fault = f"{where} was made with other prefixes than {asked}"
            remedy = f"`{had}` continues it, or load into another --collection"
        elif what == "model" and not embeds(had):
            fault = f"{where} holds the vectors that its items brought (--model {NO_MODEL}), not those of {asked}"
        elif what == "model" and not embeds(asked) and not target.function:
            source = f"--model {NO_MODEL} does not say which model its vectors come from"
            fault = f"{where} was made with the model {had}, and {source}"
        else:
            wanted = target.function if what == "model" and target.function else asked
            fault = f"{where} was made with the {what} {had}, not {wanted}"
        raise Refusal(message=f"{fault}; {remedy}")


def _short(model: str) -> str:
    """Return a model's name without its maker, which embedding functions may leave out."""
    return model.rpartition("/")[2].lower()


def dimension_mismatch(target: Target, *, had: int, asked: int) -> Refusal:
    """Return the error for vectors that do not fit into a collection."""
    gives, remedy = f"{target.model.name} gives", "the --model it was made with, or another --collection"
    if not embeds(target.model.name):
        gives, remedy = "the items bring", "another --collection"
    return Refusal(
        message=f"the collection {target.collection} in {target.path} holds vectors of {had} numbers, and "
        f"{gives} {asked}; choose {remedy}"
    )
