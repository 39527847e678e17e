"""The options that choose a Chroma target and a model, for all commands that need one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from upsert_cli.cli.options.option import Decorator, option
from upsert_cli.cli.options.param_types import ChromaTarget
from upsert_cli.embedding.catalog import DEFAULT_MODEL
from upsert_cli.embedding.custom import POOLINGS, Pooling
from upsert_cli.journal.load_options import LoadOptions


def chroma_option() -> Decorator:
    """Return the option for the target."""
    return option(
        "--chroma",
        type=ChromaTarget(),
        default="chroma",
        show_default="./chroma",
        metavar="TARGET",
        help="A folder, http(s)://host:port[/tenant/database], or `cloud`.",
    )


def precision_option() -> Decorator:
    """Return the option for the precision in which a model computes."""
    return option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        default="fp32",
        help="Precision of the model; bf16 is faster on some processors.",
    )


def model_files_options() -> list[Decorator]:
    """Return the options for the files of a model."""
    return [
        option(
            "--model-path",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            metavar="DIR",
            help="The folder with the model's files.",
        ),
        option("--offline", is_flag=True, help="Never look for the model on the network."),
    ]


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

_MODEL_HELP = "A dense text model; see `models list`. Any name with --model-path."

MODEL_OPTIONS: tuple[Decorator, ...] = (
    option("--model", default=DEFAULT_MODEL, metavar="NAME", help=_MODEL_HELP),
    *model_files_options(),
    *_CUSTOM_OPTIONS,
)

MODEL_OR_NONE_OPTIONS: tuple[Decorator, ...] = (
    option(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|none",
        help=f"{_MODEL_HELP} With none, items bring their vectors.",
    ),
    *MODEL_OPTIONS[1:],
)

QUERY_MODEL_OPTIONS: tuple[Decorator, ...] = (
    option("--model", metavar="NAME", show_default="the collection's", help="The model, if the collection names none."),
    *model_files_options(),
    *_CUSTOM_OPTIONS,
)


def model_options(
    *, model_path: Path | None, offline: bool, pooling: Pooling | None = None, no_normalize: bool = False
) -> LoadOptions:
    """Return the options for a model's files, for commands that load nothing.

    Raises:
        UsageError: They describe files that none of them names.
    """
    refuse_pooling_alone(model_path=model_path, pooling=pooling, no_normalize=no_normalize)
    path = None if model_path is None else str(model_path.absolute())
    return LoadOptions(model_path=path, offline=offline, pooling=pooling, no_normalize=no_normalize)


def refuse_pooling_alone(*, model_path: Path | None, pooling: str | None, no_normalize: bool, **_: Any) -> None:
    """Refuse options that describe a model's files without naming their folder.

    Raises:
        UsageError: There is no folder.
    """
    if model_path is None and (pooling is not None or no_normalize):
        raise click.UsageError("--pooling and --no-normalize go with --model-path.")
