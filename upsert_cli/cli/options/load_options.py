"""The options of `run` and `preview` under their headings, their contradictions, and the request that they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import click
from click.core import ParameterSource

from upsert_cli.cli.options.completions import files, task_ids
from upsert_cli.cli.options.option import Decorator, all_of, json_option, option, under
from upsert_cli.cli.options.param_types import integer, new_task_id, number
from upsert_cli.cli.options.shared_options import (
    CHROMA_OPTION,
    EVENTS_OPTION,
    METRICS_OPTION,
    MODEL_OR_NONE_OPTIONS,
    collection_option,
    load_option,
    of_load,
)
from upsert_cli.embedding.catalog import embeds
from upsert_cli.journal.load_options import DEFAULT_MAX_DELETE, MAPPING, LoadOptions
from upsert_cli.journal.option_field import flag
from upsert_cli.load.request import INSTEAD, Kind, LoadRequest, read_mapping
from upsert_cli.sources.formats import is_collection

MAX_PREVIEW = 1_000  # rows; all of them are in memory

_REQUEST_OPTIONS = ("chroma", "collection", "model", "task_id", "enqueue")
_ORIGINS = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
_ENVIRONMENT, _UNSET = 1, len(_ORIGINS)  # ranks; the strongest origin is first

_SOURCES = click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", shell_complete=files)

_MAPPING_OPTIONS = (
    *of_load(*MAPPING),
    option(
        "--map",
        "map_file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Read these options from a TOML file.",
    ),
)
_OTHER_INPUT_OPTIONS = of_load("refs_root", "where", "keep_vectors")
_MODEL_OPTIONS = (*MODEL_OR_NONE_OPTIONS, *of_load("passage_prefix", "query_prefix"))
_LONG_TEXT_OPTIONS = of_load("split", "max_tokens", "overlap", "average")

_TASK_OPTIONS = (
    option(
        "--task-id",
        type=new_task_id,
        metavar="ID",
        shell_complete=task_ids,
        help="Make sure that this task is done: create it, continue it, or do nothing.",
    ),
    option(
        "--if-running",
        type=click.Choice(["refuse", "wait", "skip"]),
        default="refuse",
        help="What to do if another process has the task or the folder.",
    ),
    option("--wait-timeout", type=number(0), metavar="SECS", help="With --if-running wait: give up after SECS."),
    option("--dry-run", is_flag=True, help="Read, check and compare all, but write nothing."),
    option("--no-compare", is_flag=True, help="With --dry-run: use no collection and no model."),
    option("--verify", is_flag=True, help="Read everything back after the load."),
    load_option("force"),
    option("--enqueue", is_flag=True, help="Leave the task to `upsert-cli work`."),
)
_Given: TypeAlias = Callable[[str], Any]  # returns the value of an option by its name; None without it


def preview_options() -> Decorator:
    """Return a decorator for the sources of a preview and the options that its records depend on."""
    limit = load_option("limit", type=integer(1, MAX_PREVIEW), default=3, help="Show the first N rows.")
    return all_of(
        [
            _SOURCES,
            *under("Input", limit, *_MAPPING_OPTIONS, *_OTHER_INPUT_OPTIONS),
            *under("Model", *_MODEL_OPTIONS),
            *under("Long texts", *_LONG_TEXT_OPTIONS),
            *under("Output", json_option("Print one JSON object per line.")),
        ]
    )


def load_options(collection: str) -> Decorator:
    """Return a decorator for the sources and options of a load, given the default collection."""
    return all_of(
        [
            _SOURCES,
            *under("Target", CHROMA_OPTION, collection_option("The collection to load into.", default=collection)),
            *under("Input", *_MAPPING_OPTIONS, load_option("limit"), *_OTHER_INPUT_OPTIONS),
            *under("Model", *_MODEL_OPTIONS, *of_load("precision", "device", "threads", "token_budget")),
            *under("Long texts", *_LONG_TEXT_OPTIONS),
            *under("Task", *_TASK_OPTIONS),
            *under("Limits", *of_load("max_failures", "strict", "delete_missing", "scope", "max_delete")),
            *under("Writing and servers", *of_load("batch_size", "writers", "retry_for")),
            *under("Ray", *of_load("engine", "ray_address", "workers", "num_gpus_per_worker")),
            *under("Output", EVENTS_OPTION, METRICS_OPTION),
        ]
    )


def load_request(kind: Kind, *, sources: tuple[str, ...], verbose: bool, **options: Any) -> LoadRequest:
    """Return the request for the options that say what to load.

    Raises:
        UsageFault: The mapping is not understood.
    """
    request = {name: options.pop(name) for name in _REQUEST_OPTIONS}
    options["max_delete"] = options["max_delete"] or DEFAULT_MAX_DELETE
    return LoadRequest(kind=kind, names=sources, options=parsed_options(options, verbose=verbose), **request)


def parsed_options(options: dict[str, Any], *, verbose: bool) -> LoadOptions:
    """Return the options that a load and its preview have in common, merged with the file of --map.

    Raises:
        UsageFault: The mapping is not understood.
    """
    given = _mapping_options(click.get_current_context(), options)
    mapping = read_mapping(options.pop("map_file"), given)
    folders = {name: _absolute(options[name]) for name in ("model_path", "refs_root")}
    return LoadOptions(**options | mapping | folders, verbose=verbose)


def _mapping_options(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Take the mapping out of the options, without values that a stronger origin contradicts.

    A settings file gives way to a typed --map, and an option to its alternative from a stronger origin: `--id-from` in
    a file to `--id-field` on the command line.
    """
    params = {flag(name).removeprefix("--").replace("-", "_"): name for name in MAPPING}
    given = {name: options.pop(param) for param, name in params.items() if param in options}
    rank = {name: _rank(ctx, param) for param, name in params.items()}
    rank_of_file = _rank(ctx, "map_file") if options.get("map_file") is not None else _UNSET

    def is_overruled(name: str) -> bool:
        by_the_file = rank[name] > max(rank_of_file, _ENVIRONMENT)
        by_its_alternative = rank[name] > rank.get(INSTEAD.get(name, ""), _UNSET)
        return by_the_file or by_its_alternative

    return {name: value for name, value in given.items() if not is_overruled(name)}


def _rank(ctx: click.Context, param: str) -> int:
    """Return the rank of the origin of an option's value, 0 for the strongest."""
    source = ctx.get_parameter_source(param)
    return _ORIGINS.index(source) if source in _ORIGINS else _UNSET


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _has_collection(given: _Given) -> bool:
    return any(map(is_collection, given("sources")))


def _is_typed(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


_CONTRADICTIONS: dict[str, Callable[[_Given], Any]] = {
    "--pooling and --no-normalize go with --model-path.": (
        lambda given: given("model_path") is None and (given("pooling") or given("no_normalize"))
    ),
    "--enqueue leaves the task to a worker, so it goes neither with --dry-run nor --verify.": (
        lambda given: given("enqueue") and (given("dry_run") or given("verify"))
    ),
    "--no-compare goes with --dry-run; a load always compares, unless --force writes all.": (
        lambda given: given("no_compare") and not given("dry_run")
    ),
    "--max-delete goes with --delete-missing, without which nothing is deleted.": (
        lambda given: given("max_delete") is not None and not given("delete_missing")
    ),
    (
        "--delete-missing deletes what the sources do not hold, and --limit leaves part of them unread; "
        "choose one of them."
    ): (lambda given: given("delete_missing") and given("limit") is not None),
    "--delete-missing looks at the collection, which --no-compare leaves alone.": (
        lambda given: given("delete_missing") and given("no_compare")
    ),
    "--workers and --num-gpus-per-worker go with --engine ray.": (
        lambda given: given("engine") == "local" and (given("workers") or given("num_gpus_per_worker"))
    ),
    "--precision bf16 is for processors; --device cuda computes in fp32.": (
        lambda given: given("device") == "cuda" and given("precision") == "bf16"
    ),
    "--max-tokens, --overlap and --average go with --split.": (
        lambda given: not given("split") and (given("max_tokens") or given("overlap") or given("average"))
    ),
    "--split cuts texts by the tokens of a model, and --model none uses no model.": (
        lambda given: given("split") and not embeds(given("model"))
    ),
    "--overlap {overlap} has to be less than --max-tokens {max_tokens}.": (
        lambda given: given("max_tokens") is not None and given("overlap") >= given("max_tokens")
    ),
    "--where goes with a collection as a source, chroma:TARGET#COLLECTION.": (
        lambda given: given("where") is not None and not _has_collection(given)
    ),
    "--keep-vectors goes with a collection as a source, chroma:TARGET#COLLECTION.": (
        lambda given: given("keep_vectors") and not _has_collection(given)
    ),
    "--keep-vectors copies records as they are, so it does not go with --split.": (
        lambda given: given("keep_vectors") and given("split")
    ),
    "--keep-vectors copies the vectors and their model's name, so it goes without --model.": (
        lambda given: given("keep_vectors") and embeds(given("model")) and _is_typed("model")
    ),
    "--model none embeds nothing; --keep-vectors copies the vectors of a collection.": (
        lambda given: not embeds(given("model")) and not given("keep_vectors") and _has_collection(given)
    ),
}
"""Messages for options that do not go together, each with the condition on the given options, in this order."""


def refuse_contradictions(options: Mapping[str, Any]) -> None:
    """Refuse options of `run` or `preview` that do not go together.

    Raises:
        UsageError: Two options contradict each other.
    """
    for message, applies in _CONTRADICTIONS.items():
        if applies(options.get):
            raise click.UsageError(message.format_map(options))
