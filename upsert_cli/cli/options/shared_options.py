"""The arguments and options that several commands take: a task, a target, a collection, a model and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from upsert_cli.cli.options import completions
from upsert_cli.cli.options.option import Decorator, json_option, option
from upsert_cli.cli.options.param_types import (
    MAX_WATCH_SECONDS,
    chroma_filter,
    chroma_target,
    number,
    share,
    task_id,
    unicode_text,
)
from upsert_cli.embedding.catalog import DEFAULT_MODEL, POOLINGS, Pooling
from upsert_cli.journal.load_options import LoadOptions


def task_argument(metavar: str = "TASK_ID", *, required: bool = True) -> Decorator:
    """Return the argument for a task of the journal."""
    return click.argument(
        "task_id", type=task_id, metavar=metavar, required=required, shell_complete=completions.task_ids
    )


def collection_argument(name: str) -> Decorator:
    """Return an argument for the name of a collection."""
    return click.argument(name, type=unicode_text, metavar=name.upper(), shell_complete=completions.collections)


def collection_option(text: str, *, default: str = "default") -> Decorator:
    """Return the option for a collection, given its help."""
    return option("--collection", default=default, metavar="NAME", shell_complete=completions.collections, help=text)


def watch_option(text: str, *, seconds: float) -> Decorator:
    """Return the option for watching the journal, given its help and the seconds between two looks."""
    kind = number(0.1, MAX_WATCH_SECONDS)
    return option("--watch", is_flag=False, flag_value=seconds, type=kind, metavar="[SECS]", help=text)


def limit_options(default_failures: str, default_deletions: str) -> tuple[Decorator, Decorator]:
    """Return the options for the limits of a load, given their defaults in words."""
    failures = {"show_default": default_failures, "help": "Fail beyond N rejects."}
    deletions = {"show_default": default_deletions, "help": "Refuse to delete more records."}
    return (
        option("--max-failures", type=share, metavar="N|N%", **failures),
        option("--max-delete", type=share, metavar="N|N%", **deletions),
    )


CHROMA_OPTION = option(
    "--chroma",
    type=chroma_target,
    default="chroma",
    show_default="./chroma",
    metavar="TARGET",
    shell_complete=completions.folders,
    help="A folder, http(s)://host:port[/tenant/database], or `cloud`.",
)

WHERE_OPTION = option(
    "--where", type=chroma_filter, metavar="JSON", help='A filter, such as \'{"year": {"$gte": 2024}}\'.'
)

METRICS_OPTION = option(
    "--metrics-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write the outcome for Prometheus to PATH.",
)

EVENTS_OPTION = json_option("Print events as JSON lines, the last a summary.")

PRECISION_OPTION = option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    help="Precision of the model; bf16 is faster on some processors.",
)

MODEL_FILES_OPTIONS = (
    option(
        "--model-path",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIR",
        help="The folder with the model's files.",
    ),
    option("--offline", is_flag=True, help="Never look for the model on the network."),
)

_CUSTOM_OPTIONS = (
    option(
        "--pooling",
        type=click.Choice(POOLINGS),
        metavar="KIND",
        show_default="as the files say",
        help="mean, cls, last-token or none, for a model of your own.",
    ),
    option("--no-normalize", is_flag=True, help="Keep the lengths of such a model's vectors."),
)

_A_MODEL = "A dense text model; see `models list`. Any name with --model-path."


def _model_options(text: str, **attributes: Any) -> tuple[Decorator, ...]:
    model = option("--model", **{"metavar": "NAME"} | attributes, shell_complete=completions.models, help=text)
    return (model, *MODEL_FILES_OPTIONS, *_CUSTOM_OPTIONS)


MODEL_OPTIONS = _model_options(_A_MODEL, default=DEFAULT_MODEL)
MODEL_OR_NONE_OPTIONS = _model_options(
    f"{_A_MODEL} With none, items bring their vectors.", default=DEFAULT_MODEL, metavar="NAME|none"
)
QUERY_MODEL_OPTIONS = _model_options("The model, if the collection names none.", show_default="the collection's")


def model_options(
    *, model_path: Path | None, offline: bool, pooling: Pooling | None = None, no_normalize: bool = False
) -> LoadOptions:
    """Return the options for a model's files, for commands that load nothing.

    Raises:
        UsageError: They describe files that none of them names.
    """
    if model_path is None and (pooling is not None or no_normalize):
        raise click.UsageError("--pooling and --no-normalize go with --model-path.")
    path = None if model_path is None else str(model_path.absolute())
    return LoadOptions(model_path=path, offline=offline, pooling=pooling, no_normalize=no_normalize)
