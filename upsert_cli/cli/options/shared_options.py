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
    integer,
    number,
    ray_address,
    scope,
    share,
    task_id,
    unicode_text,
)
from upsert_cli.embedding.catalog import DEFAULT_MODEL, Pooling
from upsert_cli.journal.load_options import OPTIONS, LoadOptions
from upsert_cli.journal.option_field import flag

_PARSERS = {
    "where": chroma_filter,
    "scope": scope,
    "max_delete": share,
    "max_failures": share,
    "ray_address": ray_address,
}
"""The types of options whose text has a form, by field."""


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


def load_option(name: str, **changes: Any) -> Decorator:
    """Return the option that sets a field of `LoadOptions`; `changes` are for another command than `run`."""
    field, shown = OPTIONS[name], OPTIONS[name].metadata
    attributes: dict[str, Any] = {
        "help": shown["help"],
        "metavar": shown.get("metavar", "N" if "within" in shown else None),
        "multiple": shown.get("multiple", False),
        "type": _type_of(name),
    }
    if field.default is False:
        # Where a file may have it too, a flag that is not given is neither true nor false.
        attributes |= {"is_flag": True} | ({"default": None} if shown["maps"] else {})
    elif "usually" in shown:
        attributes["show_default"] = shown["usually"]
    elif field.default is not None:
        attributes["default"] = field.default
    return option(flag(name), **attributes | changes)


def _type_of(name: str) -> Any:
    field, shown = OPTIONS[name], OPTIONS[name].metadata
    if "choices" in shown:
        return click.Choice(shown["choices"])
    if "within" in shown:
        return (number if isinstance(field.default, float) else integer)(*shown["within"])
    return click.Path(exists=True, file_okay=False, path_type=Path) if "folder" in shown else _PARSERS.get(name)


def of_load(*names: str) -> tuple[Decorator, ...]:
    """Return the options that set fields of `LoadOptions`."""
    return tuple(map(load_option, names))


CHROMA_OPTION = option(
    "--chroma",
    type=chroma_target,
    default="chroma",
    show_default="./chroma",
    metavar="TARGET",
    shell_complete=completions.folders,
    help="A folder, http(s)://host:port[/tenant/database], or `cloud`.",
)

WHERE_OPTION = load_option("where", help='A filter, such as \'{"year": {"$gte": 2024}}\'.')

METRICS_OPTION = option(
    "--metrics-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write the outcome for Prometheus to PATH.",
)

EVENTS_OPTION = json_option("Print events as JSON lines, the last a summary.")

MODEL_FILES_OPTIONS = of_load("model_path", "offline")

_A_MODEL = "A dense text model; see `models list`. Any name with --model-path."


def _model_options(text: str, **attributes: Any) -> tuple[Decorator, ...]:
    model = option("--model", **{"metavar": "NAME"} | attributes, shell_complete=completions.models, help=text)
    return (model, *MODEL_FILES_OPTIONS, *of_load("pooling", "no_normalize"))


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
        UsageError: They describe the files of a model whose folder is not given.
    """
    if model_path is None and (pooling is not None or no_normalize):
        raise click.UsageError("--pooling and --no-normalize go with --model-path.")
    path = None if model_path is None else str(model_path.absolute())
    return LoadOptions(model_path=path, offline=offline, pooling=pooling, no_normalize=no_normalize)
