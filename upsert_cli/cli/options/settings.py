"""The value of an option in the settings files, as if it had been typed.

Click's `default_map` would not do. It shows the values of a file as defaults in `--help`, loses the file and the table
that an error has to name, and cannot fall back from `[categories.run]` to `[run]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from upsert_cli.errors import UsageFault
from upsert_cli.paths import expanded
from upsert_cli.settings import Configuration, Setting, read_configuration

_FALLBACKS = {
    ("categories", "run"): ("run",),
    ("preview",): ("run",),
    ("collections", "list"): ("collections",),
    ("collections", "delete"): ("collections",),
}
"""Commands that take the settings and variables of another command where they have none themselves."""

_NOT_TAKEN = {
    ("categories", "run"): {"collection", "task_id"},
    ("preview",): {"limit", "json"},
    ("collections", "delete"): {"json", "yes"},
}
"""The options that these commands do not take from the other one, by parameter."""

CHOICE_OF_FILE = ("config", "profile")  # these options choose the settings, so a file cannot set them
_KEPT = f"{__name__}.read"
_CHECKED = f"{__name__}.checked"


def configuration_of(ctx: click.Context) -> Configuration:
    """Return the settings for a command, read once and checked as far as they concern the command.

    Raises:
        UsageFault: A file cannot be used, or has a key that no option has.
    """
    configuration = _read(ctx)
    if configuration.files and not ctx.meta.get(_CHECKED):
        common = [key_of(param) for param in options_of(ctx.command) if is_common(param)]
        configuration.check((), settings=common, tables=list_commands(ctx.find_root()))
        check_command(configuration, ctx)
        ctx.meta[_CHECKED] = True
    return configuration


def _read(ctx: click.Context) -> Configuration:
    known: Configuration | None = ctx.meta.get(_KEPT)
    if known is None:
        given, profile = ctx.params.get("config"), ctx.params.get("profile")
        # While Click reads the options, an option that was not given has a sentinel.
        known = ctx.meta[_KEPT] = read_configuration(
            given if isinstance(given, Path) else None, profile if isinstance(profile, str) else None
        )
    return known


def check_command(configuration: Configuration, ctx: click.Context) -> None:
    """Check that the tables of a command hold nothing but its options."""
    path = path_of(ctx)
    keys = [key_of(param) for param in options_of(ctx.command)]
    configuration.check(path, settings=keys)
    if path == ("categories", "run"):  # has the options of `run`, all of them
        configuration.check(("run",), settings=keys)
    if ctx.parent is not None and len(path) > 1:
        group = path[:-1]
        shared = keys if _FALLBACKS.get(path) == group else ()
        configuration.check(group, settings=shared, tables=list_commands(ctx.parent))


def setting_of(param: click.Option, ctx: click.Context) -> Setting | None:
    """Return the setting for an option, after a check of the files."""
    if ctx.resilient_parsing or ctx.command.name is None or param not in options_of(ctx.command):
        return None
    configuration_of(ctx)
    return setting_unchecked(param, ctx)


def setting_unchecked(param: click.Parameter, ctx: click.Context) -> Setting | None:
    """Return the setting for an option, even if the files have errors elsewhere."""
    tables = [path_of(ctx)]
    if (other := fallback_of(param, ctx)) is not None:
        tables.append(other)
    if is_common(param):
        tables.append(())
    return _read(ctx).find(tables, key_of(param))


def flag_is_set(name: str, ctx: click.Context, args: list[str]) -> bool:
    """Tell whether a flag is set anywhere, for a command whose other options may be impossible to read."""
    lenient: dict[str, Any] = dict.fromkeys(("resilient_parsing", "ignore_unknown_options", "allow_extra_args"), True)
    probe = ctx.command.make_context(ctx.info_name, args, parent=ctx.parent, **lenient)
    if probe.get_parameter_source(name) is not ParameterSource.DEFAULT:
        return bool(probe.params[name])
    flag = next(param for param in ctx.command.params if param.name == name)
    with suppress(UsageFault):  # a file that cannot be read sets nothing
        setting = setting_unchecked(flag, probe)
        return setting is not None and setting.value is True
    return False


def as_typed(setting: Setting, param: click.Option) -> Any:
    """Return a setting as the parser of the command line would give it; paths are relative to the file's folder.

    Raises:
        UsageFault: The setting has the wrong type.
    """
    value = setting.value
    if param.is_flag:
        if not isinstance(value, bool):
            raise setting.must_be("true or false")
        return value
    many = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str | int | float) and not isinstance(each, bool) for each in many):
        raise setting.must_be("a text or a number")
    texts = tuple(_below(setting.file.parent, str(each), param) for each in many)
    if param.multiple:
        return texts
    if isinstance(value, list):
        raise setting.must_be("one text or number, not a list")
    return texts[0]


def options_of(command: click.Command) -> list[click.Option]:
    """Return the options of a command that a file may set."""
    options = [param for param in command.params if isinstance(param, click.Option)]
    return [param for param in options if param.name not in CHOICE_OF_FILE]


def key_of(param: click.Parameter) -> str:
    """Return the key of an option in a file: its long name without the hyphens."""
    return max(param.opts, key=len).lstrip("-")


def is_common(param: click.Parameter) -> bool:
    """Tell whether every command takes an option, so that its variable names no command."""
    return isinstance(param.envvar, str)


def list_commands(ctx: click.Context) -> list[str]:
    """Return the names of the commands of a group, in the order of the help; none for any other command."""
    return ctx.command.list_commands(ctx) if isinstance(ctx.command, click.Group) else []


def commands_below(ctx: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command below a group, in the order of the help; a command itself has one."""
    if not isinstance(ctx.command, click.Group):
        yield ctx
        return
    for name in list_commands(ctx):
        if (command := ctx.command.get_command(ctx, name)) is not None:
            yield from commands_below(click.Context(command, info_name=name, parent=ctx))


def path_of(ctx: click.Context) -> tuple[str, ...]:
    """Return the words of a command after the program's name."""
    return (*path_of(ctx.parent), ctx.info_name or "") if ctx.parent is not None else ()


def fallback_of(param: click.Parameter, ctx: click.Context) -> tuple[str, ...] | None:
    """Return the command whose settings and variables an option takes where it has none itself, if any."""
    path = path_of(ctx)
    return None if param.name in _NOT_TAKEN.get(path, ()) else _FALLBACKS.get(path)


def _below(folder: Path, value: str, param: click.Option) -> str:
    """Return a value from a file in a folder; a relative path, or a target that is one, is below that folder."""
    from upsert_cli.store.address import names_folder

    is_path = isinstance(param.type, click.Path) or (param.name == "chroma" and names_folder(value, below=folder))
    return str(folder / expanded(Path(value))) if is_path else value
