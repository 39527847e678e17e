"""The vectors that a load keeps from collections: the model that made them, their dimension and their distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from upsert_cli.embedding.catalog import NO_MODEL
from upsert_cli.embedding.identity import CHROMAS_DEFAULT, ModelIdentity, OwnVectors
from upsert_cli.errors import UsageFault
from upsert_cli.sources.source import Source
from upsert_cli.store.collection_source import StoredCollection
from upsert_cli.store.location import CollectionInfo

_UNKNOWN = ModelIdentity(name=NO_MODEL, dimension=0, max_tokens=0)


def kept_vectors(sources: Sequence[Source]) -> OwnVectors:
    """Return the vectors of the collections among some sources, with the model that the collections name.

    Raises:
        UsageFault: They are of different models, dimensions or distances, or none of the sources is a collection.
    """
    described = [(source, source.path.describe()) for source in sources if isinstance(source.path, StoredCollection)]
    if not described:
        raise UsageFault(message="--keep-vectors goes with a collection as a source, chroma:TARGET#COLLECTION")
    (name, first), *others = ((source.name, _vectors_of(info)) for source, info in described)
    for other_name, other in others:
        if other != first:
            raise UsageFault(
                message=f"--keep-vectors: {name} holds {_described(first)}, and {other_name} {_described(other)}; "
                f"load them into different collections"
            )
    return first


def _vectors_of(info: CollectionInfo) -> OwnVectors:
    model = info.stamp or (_UNKNOWN if info.named_model is None else CHROMAS_DEFAULT)
    model = replace(model, dimension=info.dimension or model.dimension)
    is_named = info.stamp is not None or info.default_function
    return OwnVectors.of(model, space=info.space or None, function=None if is_named else info.function)


def _described(vectors: OwnVectors) -> str:
    model = vectors.function or ("an unknown model" if vectors.name == NO_MODEL else vectors.name)
    return f"vectors of {model} with {vectors.dimension} numbers and the distance {vectors.space}"
