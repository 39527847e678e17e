"""The options that say how to read a file which is not in our form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from upsert_cli.cli.options import HOW_TO_REPEAT, Decorator, all_of, option
from upsert_cli.journal.load_options import MAPPING
from upsert_cli.load.request import INSTEAD
from upsert_cli.sources.formats import SUFFIXES

_FORMAT_HELP = "What the sources are, whatever their names say; also for standard input."
_TEXT_HELP = f"Where the payload has its text, dotted; several texts are joined by a newline. {HOW_TO_REPEAT}"
_ID_FROM_HELP = "Make the ids of rows that have none: FILENAME:ROW, or a hash of what the row holds."
_TEMPLATE_HELP = r"Make the text of several fields, such as 'title: {title}\n{body.plain}'; {{ and }} are braces."
_METADATA_HELP = f"What of the payload becomes metadata, dotted. {HOW_TO_REPEAT}"
_REFS_HELP = "Read the text of an item without one from the file below DIR that its item_info names."
_VECTOR_HELP = "Where an item brings its own vector, dotted; it is not embedded then."


def mapping_options() -> Decorator:
    """Adds what a foreign file is read by."""
    return all_of(
        [
            option("--format", type=click.Choice(list(SUFFIXES)), show_default="by the suffix", help=_FORMAT_HELP),
            option("--id-field", metavar="PATH", help="Where a row has its id, if it is not in item form."),
            option("--id-from", type=click.Choice(["row", "hash"]), help=_ID_FROM_HELP),
            option("--text-field", multiple=True, metavar="PATH,...", show_default="text", help=_TEXT_HELP),
            option("--template", metavar="TEXT", help=_TEMPLATE_HELP),
            option(
                "--metadata-fields",
                multiple=True,
                metavar="PATH,...",
                show_default="the whole payload",
                help=_METADATA_HELP,
            ),
            option("--vector-field", metavar="PATH", show_default="vector, if it is a list", help=_VECTOR_HELP),
            option(
                "--keep-lists", is_flag=True, default=None, help="Keep lists of one scalar kind instead of JSON text."
            ),
            option(
                "--refs-root",
                type=click.Path(exists=True, file_okay=False, path_type=Path),
                metavar="DIR",
                help=_REFS_HELP,
            ),
            option(
                "--map",
                "map_file",
                type=click.Path(exists=True, dir_okay=False, path_type=Path),
                metavar="FILE",
                help="TOML with any of these under the same names; options beat it.",
            ),
        ]
    )


def mapping_given(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Takes what is about mapping out of a command's options, but for settings that something stronger stands for.

    What a file of settings says gives way to a --map that was typed, and an option to one that was given more
    directly and that it contradicts: `--id-from` in a file to an `--id-field` on the command line.
    """
    params = {"text_field" if name == "text_fields" else name: name for name in MAPPING}
    given = {name: options.pop(param) for param, name in params.items() if param in options}
    strength = {name: _strength(ctx, param) for param, name in params.items()}
    weakest = _strength(ctx, "map_file") if options.get("map_file") is not None else _UNSET
    return {
        name: value
        for name, value in given.items()
        if strength[name] <= max(weakest, _ENVIRONMENT)
        and strength[name] <= strength.get(INSTEAD.get(name, ""), _UNSET)
    }


_ORDER = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)
_ENVIRONMENT, _UNSET = 1, len(_ORDER)


def _strength(ctx: click.Context, param: str) -> int:
    source = ctx.get_parameter_source(param)
    return _ORDER.index(source) if source in _ORDER else _UNSET
