"""The class of all options, whose values come from the command line, the environment or a settings file.

The variable of a common option has the option's name alone, as in `UPSERT_CLI_JOURNAL`. The others have the command's
name too, as in `UPSERT_CLI_RUN_MODEL`. `settings` reads the files.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import click
from click.core import ParameterSource

from upsert_cli.cli.display.streams import require_stdout
from upsert_cli.cli.options.param_types import unicode_text
from upsert_cli.cli.options.settings import as_typed, fallback_of, setting_of
from upsert_cli.report.printed_commands import remember
from upsert_cli.settings import split_list

if TYPE_CHECKING:
    from click.types import OptionHelpExtra

OWN = "Options"  # the heading of options without another

Function: TypeAlias = Callable[..., None]
Decorator: TypeAlias = Callable[..., Function]


class Option(click.Option):
    """An option that a variable or a settings file may set too, even one of another command; see `fallback_of`."""

    def __init__(self, *args: Any, heading: str = OWN, **attributes: Any) -> None:
        """Make an option that stands under a heading in the help."""
        super().__init__(*args, **attributes)
        self.heading = heading
        if self.metavar is None and isinstance(self.type, click.Choice):
            self.metavar = "|".join(map(str, self.type.choices))

    def get_help_extra(self, ctx: click.Context) -> OptionHelpExtra:
        """Return the additions to the help text: the default, but not the range."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        if isinstance(self.show_default, str):
            extra["default"] = self.show_default
        elif isinstance(self.default, float):
            extra["default"] = f"{self.default:g}"
        return extra

    def consume_value(self, ctx: click.Context, opts: Any) -> tuple[Any, ParameterSource]:
        """Return the value and its origin: the command line beats the environment, which beats the files."""
        if not (self.is_flag or self.multiple) and (typed := opts.get(self.name)):
            if any(each != typed[0] for each in typed) and not ctx.resilient_parsing:
                name = max(self.opts, key=len)
                raise click.UsageError(f"{name} is given {len(typed)} times, with different values; give it once", ctx)
            opts = {**opts, self.name: typed[-1]}
        value, source = super().consume_value(ctx, opts)
        if source is ParameterSource.COMMANDLINE:
            remember(ctx, self.name, value)
        if source is ParameterSource.DEFAULT and (setting := setting_of(self, ctx)) is not None:
            return as_typed(setting, self), ParameterSource.DEFAULT_MAP
        return value, source

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser keep every typed value, so that `consume_value` sees whether they differ."""
        if self.is_flag:
            super().add_to_parser(parser, ctx)
        else:
            parser.add_option(obj=self, opts=self.opts, dest=self.name, action="append", nargs=self.nargs)

    def value_from_envvar(self, ctx: click.Context) -> Any:
        """Return the value of a variable; for a repeatable option, each line is a value."""
        if not self.multiple:
            return super().value_from_envvar(ctx)
        value = self.resolve_envvar_value(ctx)
        return None if value is None else tuple(line for line in value.splitlines() if line.strip()) or None

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the value of the first variable of the option that is set and not empty."""
        return next((value for name in self.variables(ctx) if (value := os.environ.get(name))), None)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Convert a value; text has to be valid Unicode, while paths may be any bytes."""
        if value == "" and isinstance(self.type, click.Path):
            raise click.BadParameter("it is empty; name a folder or a file", ctx=ctx, param=self)
        if self.multiple and isinstance(value, tuple | list):
            value = tuple(part for each in value for part in split_list(each))
        cast = super().type_cast_value(ctx, value)
        return tuple(map(unicode_text, cast)) if isinstance(cast, tuple) else unicode_text(cast)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return the origin of a bad value: the option as typed, the variable, or the key in a file."""
        hint = click.Parameter.get_error_hint(self, ctx)
        source = None if ctx is None else ctx.get_parameter_source(self.name)
        if ctx is not None and source is ParameterSource.ENVIRONMENT:
            return f"the environment variable {self.variable_in_use(ctx)} ({hint})"
        if ctx is not None and source is ParameterSource.DEFAULT_MAP and (setting := setting_of(self, ctx)) is not None:
            return f"`{setting.key}` in {setting.location} ({hint})"
        return hint

    def variable_in_use(self, ctx: click.Context) -> str | None:
        """Return the name of the variable that sets the option."""
        return next((name for name in self.variables(ctx) if os.environ.get(name)), None)

    def variables(self, ctx: click.Context) -> Iterator[str]:
        """Yield the names of the environment variables that set the option, the strongest first."""
        if isinstance(self.envvar, str):
            yield self.envvar
        elif self.name and ctx.auto_envvar_prefix:
            yield f"{ctx.auto_envvar_prefix}_{self.name.upper()}"
            if (other := fallback_of(self, ctx)) is not None:
                yield "_".join([ctx.find_root().auto_envvar_prefix or "", *other, self.name]).upper()


def option(*names: str, **attributes: Any) -> Decorator:
    """Return a decorator that adds an option; `under` gives it a heading."""

    def decorate(command: Function, *, heading: str = OWN) -> Function:
        return click.option(*names, cls=Option, heading=heading, **attributes)(command)

    return decorate


def under(heading: str, *options: Decorator) -> Iterator[Decorator]:
    """Yield options with a heading in the help."""
    return (functools.partial(each, heading=heading) for each in options)


def all_of(options: Iterable[Decorator]) -> Decorator:
    """Return a decorator that adds several options in their order."""

    def decorate(command: Function) -> Function:
        for decorator in reversed(list(options)):
            command = decorator(command)
        return command

    return decorate


def json_option(text: str, name: str = "--json") -> Decorator:
    """Return an option for output that programs read."""
    return option(name, is_flag=True, callback=_require_stdout, help=text)


def _require_stdout(_ctx: click.Context, _param: click.Parameter, wanted: bool) -> bool:  # noqa: FBT001  # click's call
    if wanted:
        require_stdout()
    return wanted
