"""The options that choose a Chroma target and a model, for all commands that need one of them."""

from __future__ import annotations

from pathlib import Path

import click

from upsert_cli.cli.options import Decorator, option
from upsert_cli.cli.param_types import ChromaTarget
from upsert_cli.embedding.catalog import DEFAULT_MODEL


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


MODEL_OPTIONS: tuple[Decorator, ...] = (
    option("--model", default=DEFAULT_MODEL, metavar="NAME", help="A dense text model; see `models list`."),
    *model_files_options(),
)
