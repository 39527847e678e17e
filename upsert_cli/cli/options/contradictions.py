"""Options of `run` and `preview` that do not go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import click
from click.core import ParameterSource

from upsert_cli.embedding.catalog import embeds
from upsert_cli.sources.formats import is_collection

_Given: TypeAlias = Callable[[str], Any]  # returns the value of an option by its name; None without it


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
