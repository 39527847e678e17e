"""The options that say which Chroma and which model are meant, for all commands that need one of them."""

from __future__ import annotations

from pathlib import Path

import click

from upsert_cli.cli.options import Decorator, all_of, option
from upsert_cli.cli.param_types import ChromaPlace
from upsert_cli.embedding.catalog import DEFAULT_MODEL


def chroma_option(also: str = "") -> Decorator:
    """Returns the option that says where Chroma is."""
    return option(
        "--chroma",
        type=ChromaPlace(),
        default="chroma",
        metavar="TARGET",
        help=f"A folder, http(s)://host:port[/tenant/database], or `cloud`{also}.",
    )


def model_options() -> Decorator:
    """Adds the choice of a model."""
    return all_of(model_choices())


def model_place(when: str = ", instead of looking for them") -> list[Decorator]:
    """Returns the options that say where a model's files are; `when` ends the help of the folder."""
    return [
        option(
            "--model-path",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            metavar="DIR",
            help=f"The folder with the model's files{when}.",
        ),
        option("--offline", is_flag=True, help="Never look for the model in the network."),
    ]


def model_choices() -> list[Decorator]:
    """Returns the options that choose a model."""
    return [
        option(
            "--model", default=DEFAULT_MODEL, metavar="NAME", help="A dense text model of fastembed's (`models list`)."
        ),
        *model_place(),
    ]
