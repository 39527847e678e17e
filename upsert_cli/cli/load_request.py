"""The options of a load, as they were given -> the request that they make, where they go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from upsert_cli.cli.json_command import report
from upsert_cli.cli.mapping_options import mapping_given
from upsert_cli.cli.terminal import Terminal
from upsert_cli.errors import UsageFault
from upsert_cli.journal.load_options import DEFAULT_MAX_DELETE, LoadOptions
from upsert_cli.load.request import Kind, LoadRequest, read_mapping

_ELSEWHERE = ("json", "verify", "dry_run", "no_compare", "if_running", "wait_timeout", "metrics_file")
"""What says how to go about a load, and nothing about what it does."""


def request_of(kind: Kind, terminal: Terminal, **options: Any) -> LoadRequest:
    """Returns what is asked for.

    Raises:
        UsageError: Two options do not go together.
        UsageFault: The mapping cannot be understood.
    """
    _check(**options)
    options["max_delete"] = options["max_delete"] or DEFAULT_MAX_DELETE
    json = options["json"]
    for name in _ELSEWHERE:
        del options[name]
    given = mapping_given(click.get_current_context(), options)
    try:
        mapping = read_mapping(options.pop("map_file"), given)
    except UsageFault as error:
        if json:
            report(error, click.get_current_context())
        raise
    places: dict[str, Any] = {name: _absolute(options.pop(name)) for name in ("model_path", "refs_root")}
    return LoadRequest(
        kind=kind,
        names=options.pop("sources"),
        chroma=options.pop("chroma"),
        collection=options.pop("collection"),
        model=options.pop("model"),
        task_id=options.pop("task_id"),
        enqueue=options.pop("enqueue"),
        options=LoadOptions(**mapping, **places, verbose=terminal.verbose, **options),
    )


def _check(
    *,
    enqueue: bool,
    dry_run: bool,
    verify: bool,
    engine: str,
    workers: int | None,
    num_gpus_per_worker: float | None,
    no_compare: bool,
    delete_missing: bool,
    max_delete: str | None,
    split: bool,
    max_tokens: int | None,
    overlap: int,
    average: bool,
    **_: Any,
) -> None:
    if enqueue and (dry_run or verify):
        raise click.UsageError("--enqueue leaves the task to a worker, so it goes neither with --dry-run nor --verify.")
    if engine == "local" and (workers or num_gpus_per_worker):
        raise click.UsageError("--workers and --num-gpus-per-worker go with --engine ray.")
    if no_compare and not dry_run:
        raise click.UsageError("--no-compare goes with --dry-run; a load always compares, unless --force writes all.")
    if max_delete is not None and not delete_missing:
        raise click.UsageError("--max-delete goes with --delete-missing, without which nothing is deleted.")
    if no_compare and delete_missing:
        raise click.UsageError("--delete-missing looks at the collection, which --no-compare leaves alone.")
    if not split and (max_tokens is not None or overlap or average):
        raise click.UsageError("--max-tokens, --overlap and --average go with --split.")
    if max_tokens is not None and overlap >= max_tokens:
        raise click.UsageError(f"--overlap {overlap} has to be less than --max-tokens {max_tokens}.")


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
