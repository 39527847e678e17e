"""Makes a load request from the options of `run`, and refuses options that contradict each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from upsert_cli.cli.display.terminal import Terminal
from upsert_cli.cli.options.target_options import refuse_pooling_alone
from upsert_cli.embedding.catalog import embeds
from upsert_cli.journal.load_options import DEFAULT_MAX_DELETE, MAPPING, LoadOptions, flag
from upsert_cli.load.request import INSTEAD, Kind, LoadRequest, read_mapping
from upsert_cli.sources.source_path import is_collection

_REQUEST_OPTIONS = ("chroma", "collection", "model", "task_id", "enqueue")
_ORIGINS = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
_ENVIRONMENT, _UNSET = 1, len(_ORIGINS)  # ranks, the strongest origin first


def load_request(kind: Kind, terminal: Terminal, *, sources: tuple[str, ...], **options: Any) -> LoadRequest:
    """Return the request for the options that say what to load.

    Raises:
        UsageFault: The mapping is not understood.
    """
    request = {name: options.pop(name) for name in _REQUEST_OPTIONS}
    options["max_delete"] = options["max_delete"] or DEFAULT_MAX_DELETE
    return LoadRequest(kind=kind, names=sources, options=parsed_options(terminal, options), **request)


def parsed_options(terminal: Terminal, options: dict[str, Any]) -> LoadOptions:
    """Return the options that a load and its preview have in common, merged with the file of --map.

    Raises:
        UsageFault: The mapping is not understood.
    """
    refuse_pooling_alone(**options)
    given = _mapping_options(click.get_current_context(), options)
    mapping = read_mapping(options.pop("map_file"), given)
    folders = {name: _absolute(options[name]) for name in ("model_path", "refs_root")}
    return LoadOptions(**options | mapping | folders, verbose=terminal.verbose)


def refuse_contradictions(options: dict[str, Any]) -> None:
    """Refuse options of `run` that do not go together.

    Raises:
        UsageError: Two options contradict each other.
    """
    for message in (
        *_contradicting_tasks(**options),
        *_contradicting_workers(**options),
        *_contradicting_devices(**options),
    ):
        raise click.UsageError(message)
    refuse_contradicting_chunks(**options)
    refuse_options_of_collections(**options)


def _contradicting_tasks(
    *,
    enqueue: bool,
    dry_run: bool,
    verify: bool,
    no_compare: bool,
    delete_missing: bool,
    max_delete: str | None,
    limit: int | None,
    **_: Any,
) -> Iterator[str]:
    if enqueue and (dry_run or verify):
        yield "--enqueue leaves the task to a worker, so it goes neither with --dry-run nor --verify."
    if no_compare and not dry_run:
        yield "--no-compare goes with --dry-run; a load always compares, unless --force writes all."
    if max_delete is not None and not delete_missing:
        yield "--max-delete goes with --delete-missing, without which nothing is deleted."
    if limit is not None and delete_missing:
        yield (
            "--delete-missing deletes what the sources do not hold, and --limit leaves part of them unread; "
            "choose one of them."
        )
    if no_compare and delete_missing:
        yield "--delete-missing looks at the collection, which --no-compare leaves alone."


def _contradicting_workers(
    *, engine: str, workers: int | None, num_gpus_per_worker: float | None, **_: Any
) -> Iterator[str]:
    if engine == "local" and (workers or num_gpus_per_worker):
        yield "--workers and --num-gpus-per-worker go with --engine ray."


def _contradicting_devices(*, device: str, precision: str, **_: Any) -> Iterator[str]:
    if device == "cuda" and precision == "bf16":
        yield "--precision bf16 is for processors; --device cuda computes in fp32."


def refuse_contradicting_chunks(
    *, model: str, split: bool, max_tokens: int | None, overlap: int, average: bool, **_: Any
) -> None:
    """Refuse options of chunks that do not go together.

    Raises:
        UsageError: Two options contradict each other.
    """
    if not split and (max_tokens is not None or overlap or average):
        raise click.UsageError("--max-tokens, --overlap and --average go with --split.")
    if split and not embeds(model):
        raise click.UsageError("--split cuts texts by the tokens of a model, and --model none uses no model.")
    if max_tokens is not None and overlap >= max_tokens:
        raise click.UsageError(f"--overlap {overlap} has to be less than --max-tokens {max_tokens}.")


def refuse_options_of_collections(
    *, sources: tuple[str, ...], where: dict[str, Any] | None, keep_vectors: bool, split: bool, model: str, **_: Any
) -> None:
    """Refuse options that do not go with collections as sources, or only with them.

    Raises:
        UsageError: They are given.
    """
    has_collection = any(map(is_collection, sources))
    given = "--where" if where is not None else "--keep-vectors" if keep_vectors else ""
    if given and not has_collection:
        raise click.UsageError(f"{given} goes with a collection as a source, chroma:TARGET#COLLECTION.")
    if keep_vectors and split:
        raise click.UsageError("--keep-vectors copies records as they are, so it does not go with --split.")
    if keep_vectors and _rank(click.get_current_context(), "model") == 0 and embeds(model):
        raise click.UsageError("--keep-vectors copies the vectors and their model's name, so it goes without --model.")
    if has_collection and not keep_vectors and not embeds(model):
        raise click.UsageError("--model none embeds nothing; --keep-vectors copies the vectors of a collection.")


def _mapping_options(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Take the mapping out of the options, without values that a stronger origin contradicts.

    A settings file gives way to a typed --map, and an option to its alternative from a stronger origin: `--id-from` in
    a file to `--id-field` on the command line.
    """
    params = {flag(name).removeprefix("--").replace("-", "_"): name for name in MAPPING}
    given = {name: options.pop(param) for param, name in params.items() if param in options}
    rank = {name: _rank(ctx, param) for param, name in params.items()}
    weakest = _rank(ctx, "map_file") if options.get("map_file") is not None else _UNSET
    return {
        name: value
        for name, value in given.items()
        if rank[name] <= max(weakest, _ENVIRONMENT) and rank[name] <= rank.get(INSTEAD.get(name, ""), _UNSET)
    }


def _rank(ctx: click.Context, param: str) -> int:
    source = ctx.get_parameter_source(param)
    return _ORIGINS.index(source) if source in _ORIGINS else _UNSET


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
