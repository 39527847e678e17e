"""The options that choose a Chroma target and a model, for all commands that need one of them."""

from __future__ import annotations

from pathlib import Path

import click

from upsert_cli.cli.options import Decorator, option
from upsert_cli.cli.param_types import ChromaTarget
from upsert_cli.embedding.catalog import DEFAULT_MODEL


def chroma_option(also: str = "") -> Decorator:
    """Return the option for the target; `also` ends its help."""
    return option(
        "--chroma",
        type=ChromaTarget(),
        default="chroma",
        metavar="TARGET",
        help=f"A folder, http(s)://host:port[/tenant/database], or `cloud`{also}.",
    )


def model_files_options(when: str = ", instead of searching for them") -> list[Decorator]:
    """Return the options for the files of a model; `when` ends the help of the folder."""
    return [
        option(
            "--model-path",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            metavar="DIR",
            help=f"The folder with the model's files{when}.",
        ),
        option("--offline", is_flag=True, help="Never look for the model on the network."),
    ]


MODEL_OPTIONS: tuple[Decorator, ...] = (
    option("--model", default=DEFAULT_MODEL, metavar="NAME", help="A dense text model of fastembed (`models list`)."),
    *model_files_options(),
)
