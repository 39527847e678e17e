"""An option -> its value in the files of settings, as if it had been typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from upsert_cli.errors import BadSetting, UsageFault
from upsert_cli.paths import expanded
from upsert_cli.settings import Configuration, Setting, read_configuration

OWN_TO_A_COMMAND = {"collection", "task_id"}  # what would be wrong for the sister command
CHOICE_OF_FILE = ("config", "profile")  # options that say which settings count, and so are none themselves
_KEPT = "upsert_cli.settings"
_CHECKED = f"{_KEPT}.checked"


def configuration_of(ctx: click.Context) -> Configuration:
    """Returns the settings that count for a command, read once and checked as far as they concern it.

    Raises:
        UsageFault: A file cannot be used, or has a key that is no option's.
    """
    known = _read(ctx)
    if known.files and not ctx.meta.get(_CHECKED):
        common = [key_of(param) for param in options_of(ctx.command) if is_common(param)]
        root = ctx.find_root()
        commands = root.command.list_commands(root) if isinstance(root.command, click.Group) else []
        known.check((), settings=common, tables=commands)
        check_command(known, ctx)
        ctx.meta[_CHECKED] = True
    return known


def _read(ctx: click.Context) -> Configuration:
    known: Configuration | None = ctx.meta.get(_KEPT)
    if known is None:
        given, profile = ctx.params.get("config"), ctx.params.get("profile")
        # While the options are read, click has a mark of its own for what was not given.
        known = ctx.meta[_KEPT] = read_configuration(
            given if isinstance(given, Path) else None, profile if isinstance(profile, str) else None
        )
    return known


def check_command(configuration: Configuration, ctx: click.Context) -> None:
    """Makes sure that the tables of a command hold nothing but its options."""
    path = _path(ctx)
    keys = [key_of(param) for param in options_of(ctx.command)]
    for table in _tables(path):
        configuration.check(table, settings=keys)
    if ctx.parent is not None and len(path) > 1 and isinstance(ctx.parent.command, click.Group):
        configuration.check(path[:-1], settings=(), tables=ctx.parent.command.list_commands(ctx.parent))


def setting_of(param: click.Option, ctx: click.Context) -> Setting | None:
    """Returns what the files of settings say of an option."""
    if ctx.resilient_parsing or ctx.command.name is None or param not in options_of(ctx.command):
        return None
    configuration_of(ctx)
    return setting_unchecked(param, ctx)


def setting_unchecked(param: click.Parameter, ctx: click.Context) -> Setting | None:
    """Returns what the files say of a command's option, whatever else they may say that cannot be meant."""
    tables = _tables(_path(ctx))
    if param.name in OWN_TO_A_COMMAND:
        tables = tables[:1]
    return _read(ctx).find([*tables, *([()] if is_common(param) else [])], key_of(param))


def as_typed(setting: Setting, param: click.Option) -> Any:
    """Returns a setting as the parser of the command line would give it; paths count from the file's folder.

    Raises:
        BadSetting: It is of a wrong kind.
    """
    value = setting.value
    if param.is_flag:
        return value if isinstance(value, bool) else _refuse(setting, "true or false")
    many = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str | int | float) and not isinstance(each, bool) for each in many):
        _refuse(setting, "a text or a number")
    texts = tuple(_below(setting.file.parent, str(each), param) for each in many)
    if param.multiple:
        return texts
    if isinstance(value, list):
        _refuse(setting, "one text or number, not a list")
    return texts[0]


def value_unless_given(command: str, option: str) -> Any:
    """Return the value that an option of a command has if it is not given: that of a variable, a file or the default.

    None where the command would refuse it.
    """
    root = click.get_current_context().find_root()
    found = root.command.get_command(root, command) if isinstance(root.command, click.Group) else None
    if found is None:
        return None
    ctx = click.Context(found, info_name=command, parent=root)
    param = next(param for param in found.params if param.name == option)
    try:
        value, _ = param.consume_value(ctx, {})
        return param.process_value(ctx, value)
    except (click.UsageError, UsageFault):
        return None


def options_of(command: click.Command) -> list[click.Option]:
    """Returns the options of a command that may be set in a file."""
    options = [param for param in command.params if isinstance(param, click.Option)]
    return [param for param in options if param.name not in CHOICE_OF_FILE]


def key_of(param: click.Parameter) -> str:
    """Returns an option's key in a file: its long name without the hyphens."""
    return max(param.opts, key=len).lstrip("-")


def is_common(param: click.Parameter) -> bool:
    """Tells whether an option is one that every command takes; its variable has no command's name."""
    return isinstance(param.envvar, str)


def _path(ctx: click.Context) -> tuple[str, ...]:
    return tuple(_names(ctx))[::-1]


def _names(ctx: click.Context) -> Iterator[str]:
    while ctx.parent is not None:
        yield ctx.info_name or ""
        ctx = ctx.parent


def _tables(path: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [path, path[1:]] if path == ("categories", "run") else [path]


def _below(folder: Path, value: str, param: click.Option) -> str:
    if isinstance(param.type, click.Path):
        return str(folder / expanded(Path(value)))
    below = getattr(param.type, "below", None)
    return value if below is None else str(below(folder, value))


def _refuse(setting: Setting, needed: str) -> Any:
    raise BadSetting(key=setting.key, where=setting.place, needed=needed)
