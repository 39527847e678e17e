"""The layout of `--help`: options and commands under headings, in two columns, and no line ends within a word.

Measured against Click's own hooks, used here, cloup doubles the CPU of `--help`, and rich-click triples it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import TypeAlias

import click

OWN = "Options"  # the heading of options that have no other one
COMMON = "Common options"
TERM_CELLS = 25  # cells for an option and the name of its value; a longer one has a line of its own

_HYPHEN, _BLANK = "\ue000", "\ue001"  # of the private use area, so no help text contains them
_WHOLE = 1_000  # characters, more than a summary has
_DEFAULT = re.compile(r"\[default: [^\]]+\]")

Sections: TypeAlias = dict[str, list[tuple[str, str]]]
"""Terms and their texts, such as options, by heading."""


class HelpFormatter(click.HelpFormatter):
    """Breaks lines only at blanks, so that options, addresses and names stay whole."""

    def write(self, string: str) -> None:
        """Write text, with the characters that were hidden from the wrapping."""
        super().write(string.replace(_HYPHEN, "-").replace(_BLANK, " "))

    def write_text(self, text: str) -> None:
        """Write paragraphs."""
        super().write_text(_unbroken(text))

    def write_sections(self, sections: Sections) -> None:
        """Write terms and their texts under headings; all sections share the width of the first column."""
        terms = [term for term, _ in chain.from_iterable(sections.values()) if len(term) <= TERM_CELLS]
        width = max(map(len, terms), default=0)
        for heading, rows in sections.items():
            with self.section(heading):
                self.write_dl([(term.ljust(width), _unbroken(text)) for term, text in rows], col_max=width)


class HelpContext(click.Context):
    """The context of a command whose help is laid out here."""

    formatter_class = HelpFormatter


class UnknownCommand(click.UsageError):
    """Raised when a group has no command of the given name; Click's own class exists from 8.4 on only."""

    def __init__(self, name: str, ctx: click.Context) -> None:
        super().__init__(f"No such command {name!r}.", ctx)
        self.name = name


class SectionedCommand(click.Command):
    """A command whose help has its options under headings, those that all commands take at the end."""

    context_class = HelpContext

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; an error of Click's parser gets the context, so that its message names this command."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings, in the order in which they were declared."""
        _write(formatter, _option_sections(self, ctx, otherwise=COMMON))


class SectionedGroup(click.Group):
    """A group whose help has a whole sentence about each command."""

    context_class = HelpContext
    command_class = SectionedCommand

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first word names."""
        name = args[0]
        is_option = name.startswith("-") and name != "-"
        if not is_option and not ctx.resilient_parsing and name not in self.list_commands(ctx):
            raise UnknownCommand(name, ctx)
        return super().resolve_command(ctx, args)

    def command_sections(self, ctx: click.Context) -> Sections:
        """Return each command with its summary, under headings."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        return {"Commands": [(name, command.get_short_help_str(_WHOLE)) for name, command in found if command]}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, and then the options of the group itself."""
        _write(formatter, self.command_sections(ctx) | _option_sections(self, ctx, otherwise=OWN))


def list_commands(ctx: click.Context) -> list[str]:
    """Return the names of the commands of a group, in the order of the help; a command that is no group has none."""
    return ctx.command.list_commands(ctx) if isinstance(ctx.command, click.Group) else []


def commands_below(ctx: click.Context) -> Iterator[click.Context]:
    """Yield a context for each command in and below a group, in the order of the help; a group itself has none."""
    if not isinstance(ctx.command, click.Group):
        yield ctx
        return
    for name in list_commands(ctx):
        if (command := ctx.command.get_command(ctx, name)) is not None:
            yield from commands_below(click.Context(command, info_name=name, parent=ctx))


def _unbroken(text: str) -> str:
    """Return text with its words and defaults protected from being broken by the wrapping."""
    return _DEFAULT.sub(lambda found: found[0].replace(" ", _BLANK), text).replace("-", _HYPHEN)


def _option_sections(command: click.Command, ctx: click.Context, *, otherwise: str) -> Sections:
    """Return the options by heading; Click's own, such as --help, are found under the heading `otherwise`."""
    sections: Sections = {}
    for param in command.get_params(ctx):
        if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None:
            sections.setdefault(getattr(param, "heading", otherwise), []).append(record)
    return sections


def _write(formatter: click.HelpFormatter, sections: Sections) -> None:
    assert isinstance(formatter, HelpFormatter)  # noqa: S101  # by the context's class
    formatter.write_sections(sections)
