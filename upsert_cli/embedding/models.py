"""Finding a model by its name: its entry, its files and its identity."""

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

SIMILAR_NAMES = 3  # suggested for an unknown name


def full_name(name: str, *, given: GivenFolder | None = None) -> str:
    """Return the name of a model in the spelling of fastembed's list; see `find_entry`."""
    return find_entry(name, given=given).name if embeds(name) else NO_MODEL


def find_entry(name: str, *, given: GivenFolder | None = None) -> ModelEntry:
    """Return the entry of a model, whose name may be in any case of letters.

    A given folder describes a model that fastembed does not list.

    Raises:
        UsageFault: fastembed lists no dense text model of that name, and no folder is given.
        UpsertCliError: fastembed lists no such model, and the given folder does not hold one.
    """
    if not embeds(name):
        raise UsageFault(message="none is not a model: `run --model none` loads items with the vectors that they bring")
    entry = DEFAULT_ENTRY if name.lower() == DEFAULT_MODEL.lower() else _listed(name, given)
    if entry.pooling is None and given is not None and given.names_steps:
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

    # Without the organisation, which people leave out or confuse.
    names = {full.rpartition("/")[2]: entry.name for full, entry in known.items()}
    similar = difflib.get_close_matches(name.lower().rpartition("/")[2], names, n=SIMILAR_NAMES)
    question = f"did you mean {' or '.join(names[each] for each in similar)}? " if similar else ""
    raise UsageFault(
        message=f"fastembed has no text model named {name!r}; {question}`upsert-cli models list` lists all of them; "
        f"another model needs --model-path, with the folder of its files"
    )


def prefixes_of(name: str, *, given: GivenFolder | None = None) -> Prefixes:
    """Return the prefixes that the maker of a model asks for, and no prefixes for `none`; see `find_entry`."""
    return find_entry(name, given=given).prefixes if embeds(name) else NO_PREFIXES


def list_models() -> list[ModelEntry]:
    """Return the dense text models that fastembed can load, the default model first."""
    from upsert_cli.embedding.fastembed import supported_models

    entries = sorted(supported_models(), key=lambda entry: (entry.name != DEFAULT_MODEL, entry.name.lower()))
    return [
        replace(entry, cached=is_cached(entry.name, entry.files), max_tokens=_listed_limit(entry)) for entry in entries
    ]


def _listed_limit(entry: ModelEntry) -> int | None:
    """Return the token limit of a model in the list: by its cached files, or else by its description."""
    if entry.name == DEFAULT_MODEL:
        return DEFAULT_ENTRY.max_tokens
    if is_cached(entry.name, entry.files) and (limit := _max_tokens(entry, cached_model(entry.name))) is not None:
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
    """Find a model in the given folder, or else in the cache, into which a missing model is fetched.

    Args:
        name: A name in fastembed's list, in any case of letters, or any name for the model of a given folder.
        given: The folder with the model's files; without a folder, the cache is used.
        prefixes: The prefixes of a load; None for the prefixes of the model's maker.
        offline: Do not use the network.
        context: Receives a message before each step that takes long.

    Raises:
        UsageFault: fastembed lists no model of that name, or cannot use the model of the given folder.
        UpsertCliError: The model was not found, cannot be stored in the cache, or is incomplete.
    """
    entry = find_entry(name, given=given)
    context = context or RunContext()
    source: Origin = "cache"
    if given is not None:
        source = "given folder"
    elif not is_cached(entry.name, entry.files):
        source = fetch_model(entry, offline=offline, context=context)
    folder = _folder_of(entry, given)
    if given is not None and (missing := missing_files(folder, entry.files)):
        raise _damaged(entry, folder, f"lacks {', '.join(missing)}", source=source)
    if entry.assumed:
        context.warning(
            f"the files of {name} name no pooling, so the vector of a text is the mean of its tokens, as in "
            f"sentence-transformers; --pooling names another way"
        )
    found = _model(entry, folder, source, prefixes)
    try:
        return replace(found, weights=weights_of(entry, found.folder, is_given=found.is_given))
    except OSError as error:
        raise _damaged(entry, found.folder, f"cannot be read ({reason_of(error)})", source=source) from error


def _folder_of(entry: ModelEntry, given: GivenFolder | None) -> Path:
    """Return the folder with a model's files: the given folder, or a folder in the cache."""
    if given is None:
        return cached_model(entry.name)
    if not given.path.is_dir():
        raise _damaged(entry, given.path, "does not exist", source="given folder")
    return given.path.absolute()


def model_without_weights(
    name: str, *, given: GivenFolder | None = None, prefixes: Prefixes | None = None
) -> Model | None:
    """Return a model whose tokenizer is on this machine, with or without its weights; None without a tokenizer.

    Raises:
        UsageFault: fastembed lists no model of that name.
        UpsertCliError: The given folder does not exist, or the tokenizer's settings name no limit.
    """
    entry = find_entry(name, given=given)
    source: Origin = "cache" if given is None else "given folder"
    files = [file for file in entry.files if file not in entry.weights]
    if given is None and not is_cached(entry.name, files):
        return None
    folder = _folder_of(entry, given)
    return None if missing_files(folder, files) else _model(entry, folder, source, prefixes)


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
        # fastembed links external data for onnxruntime, and recognises a snapshot of the hub by its path alone.
        folder=folder.resolve() if folder.is_symlink() else folder,
        source=source,
        entry=entry,
    )


def _max_tokens(entry: ModelEntry, folder: Path) -> int | None:
    """Return the token limit of the entry, or else of the tokenizer's settings; None if fastembed finds no limit."""
    is_listed = entry.pooling is None
    if is_listed and entry.max_tokens is not None:
        return entry.max_tokens
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_bytes())
        limits = [settings.get(key) for key in ("model_max_length", "max_length")]
    except (ValueError, AttributeError):
        return None
    # An unknown limit is written as 1e30, which is no integer, or as an integer that no tokenizer takes.
    usable = [limit for limit in limits if type(limit) is int and 0 < limit <= sys.maxsize]
    return entry.max_tokens or min(usable, default=None)


def _damaged(entry: ModelEntry, folder: Path, problem: str, *, source: Origin) -> UpsertCliError:
    is_given = source == "given folder"
    remedy = "give --model-path a complete folder" if is_given else "remove the folder, and it is fetched again"
    return UpsertCliError(message=f"the folder {folder} of the model {entry.name} {problem}; {remedy}")
