"""The command `config show`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource, augment_usage_errors

from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.tables import Column, print_table
from upsert_cli.cli.options.command import Group
from upsert_cli.cli.options.option import Option, json_option
from upsert_cli.cli.options.settings import (
    check_command,
    commands_below,
    configuration_of,
    is_common,
    key_of,
    options_of,
    path_of,
    setting_of,
)
from upsert_cli.redaction import in_message

_ORIGINS = {
    ParameterSource.COMMANDLINE: "option",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "file",
    ParameterSource.DEFAULT: "default",
}

_COLUMNS = (
    Column("SETTING"),
    Column("VALUE", order=2, widths=(38, 24), keep="end"),
    Column("ORIGIN", order=1, widths=(24, 12), keep="end"),
)


@click.group(cls=Group)
def config() -> None:
    """Show the settings and where they come from."""


@config.command()
@json_option("Print the settings as JSON.")
def show(session: Session, *, json: bool) -> None:
    """Show each setting, its value, and where the value comes from.

    The command line beats the environment, which beats the files: the one of --config, or else ./upsert-cli.toml and
    then config.toml in the user's configuration folder. Checks each file as a whole.
    """
    ctx = click.get_current_context()
    files = [str(path) for path in configuration_of(ctx).files]
    settings = list(_all_settings(ctx))
    if json:
        shown = [setting for _, setting in settings]
        session.print_json({"files": files, "profile": ctx.params["profile"], "settings": shown})
        return
    print_table(session.terminal, _COLUMNS, [_row(param, setting) for param, setting in settings])
    session.info(f"read: {', '.join(files)}" if files else "there is no settings file")


def _row(param: Option, setting: dict[str, Any]) -> tuple[str, str, str]:
    value = setting["value"]
    shown = _in_words(value)
    if value in (None, []) and isinstance(param.show_default, str):
        shown = f"({param.show_default})"
    return setting["setting"], shown, setting["where"] or setting["origin"]


def _all_settings(ctx: click.Context) -> Iterator[tuple[Option, dict[str, Any]]]:
    """Yield each option with its setting as `--json` prints it, the common options first."""
    for param in options_of(ctx.command):
        if isinstance(param, Option) and is_common(param):
            source = ctx.get_parameter_source(param.name) or ParameterSource.DEFAULT
            yield param, _setting(param, ctx, ctx.params[param.name], source)
    for inner in commands_below(ctx.find_root()):
        check_command(configuration_of(inner), inner)
        for param in options_of(inner.command):
            if isinstance(param, Option) and not is_common(param) and param.name != "help":
                value, source = param.consume_value(inner, {})
                inner.set_parameter_source(param.name, source)
                has_value = not param.required or source is not ParameterSource.DEFAULT
                with augment_usage_errors(inner, param=param):  # a bad value is named with its origin
                    checked = param.process_value(inner, value) if has_value else None
                yield param, _setting(param, inner, checked, source)


def _setting(param: Option, ctx: click.Context, value: Any, source: ParameterSource) -> dict[str, Any]:
    name = key_of(param) if is_common(param) else ".".join((*path_of(ctx), key_of(param)))
    where = None
    if source is ParameterSource.ENVIRONMENT:
        where = param.variable_in_use(ctx)
    elif source is ParameterSource.DEFAULT_MAP and (setting := setting_of(param, ctx)) is not None:
        where = setting.location
    return {"setting": name, "value": _plain(value), "origin": _ORIGINS[source], "where": where}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    if isinstance(value, str | Path):
        return in_message(str(value))
    # Click marks a missing value with a sentinel.
    return value if isinstance(value, bool | int | float) else None


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_in_words, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
