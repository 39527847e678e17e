"""The configuration of a collection of Chroma: the embedding function and the distance that it names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from upsert_cli.store.stamp import stamped
from upsert_cli.store.target import CollectionInfo

# The names under which Chroma stores its default function, which our default model equals.
_DEFAULT_FUNCTIONS = ("default", "onnx_mini_lm_l6_v2")
_OLD_SETTINGS = {
    "hnsw:space": "space",
    "hnsw:construction_ef": "ef_construction",
    "hnsw:search_ef": "ef_search",
    "hnsw:M": "max_neighbors",
}  # keys of metadata, and their names in a configuration since Chroma 1.0


def info_of(name: str, dimension: int | None, metadata: Mapping[str, Any], *configurations: object) -> CollectionInfo:
    """Return the description of a collection.

    The metadata has the stamp. The configurations are the JSON values in which Chroma stores the settings of the index
    and the embedding function.
    """
    functions = stored_values("embedding_function", *configurations)
    function = next((each for each in functions if isinstance(each, dict) and each.get("name")), {})
    spaces = (space for space in stored_values("space", *configurations) if isinstance(space, str))
    config, function_name = function.get("config"), function.get("name")
    function_model = (config.get("model_name") or config.get("model")) if isinstance(config, dict) else None
    return CollectionInfo(
        name=name,
        dimension=dimension,
        stamp=stamped(metadata),
        default_function=function_name in _DEFAULT_FUNCTIONS,
        function=str(function_model or f"of the embedding function {function_name}") if function_name else None,
        # Versions before 1.0 keep it in the metadata.
        space=next(filter(None, spaces), str(metadata.get("hnsw:space") or "")),
    )


def contradicts(hnsw: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Return whether the metadata of a collection sets up its index in another way than the configuration.

    Versions before 1.0 put these settings into the metadata, and the engine reads them there. The configuration has
    defaults, which count after any change to it: the index is then read by another distance than it was built with, and
    vectors come back as zeros (measured with 1.5.9).
    """
    return any(metadata.get(old, hnsw.get(name)) != hnsw.get(name) for old, name in _OLD_SETTINGS.items())


def stored_values(key: str, *configurations: object) -> Iterator[Any]:
    """Yield the values of a key in stored configurations, at any depth."""
    for each in configurations:
        if isinstance(each, dict):
            if key in each:
                yield each[key]
            yield from stored_values(key, *each.values())
