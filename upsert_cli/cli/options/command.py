"""The classes of all commands and groups: their common options, their errors, and the layout of their `--help`.

Options and commands stand under headings, in two columns, and no line ends within a word. Measured against Click's own
hooks, used here, cloup doubles the CPU of `--help`, and rich-click triples it.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import click

from upsert_cli.cli.display.session import Events, Session
from upsert_cli.cli.display.terminal import Terminal
from upsert_cli.cli.options.option import OWN, Option
from upsert_cli.cli.options.settings import flag_is_set
from upsert_cli.cli.options.suggestions import no_such_command, with_suggestion
from upsert_cli.journal.journal import Journal
from upsert_cli.paths import expanded, state_folder

COMMON = "Common options"
TERM_CELLS = 25  # cells for an option and the name of its value; the text of a longer one is on the next line

_PRINTS_EVENTS = f"{__name__}.prints_events"
"""Where a command that prints events leaves its context and its arguments, in which an error finds --json."""

_HYPHEN, _BLANK = "\ue000", "\ue001"  # of the private use area, so no help text contains them
_WHOLE = 1_000  # characters, more than a summary has
_DEFAULT = re.compile(r"\[default: [^\]]+\]")

Sections: TypeAlias = dict[str, list[tuple[str, str]]]
"""Terms and their texts, such as options, by heading."""


class HelpFormatter(click.HelpFormatter):
    """Breaks lines only at blanks, so that options, addresses and names stay whole."""

    def write(self, string: str) -> None:
        """Write text, and restore the characters that were hidden from the wrapping."""
        super().write(string.replace(_HYPHEN, "-").replace(_BLANK, " "))

    def write_text(self, text: str) -> None:
        """Write paragraphs."""
        super().write_text(_unbroken(text))


class HelpContext(click.Context):
    """The context of a command whose help `HelpFormatter` writes."""

    formatter_class = HelpFormatter


def _common(*names: str, **attributes: Any) -> Option:
    """Return an option that every command has."""
    variable = f"UPSERT_CLI_{names[-1].removeprefix('--').upper()}"
    return Option(names, heading=COMMON, envvar=variable, **attributes)


_COMMON_OPTIONS = (
    _common(
        "--journal",
        type=click.Path(file_okay=False, path_type=Path),
        default=state_folder,
        show_default="the user's state folder",
        metavar="DIR",
        help="The journal.",
    ),
    _common(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        is_eager=True,
        metavar="FILE",
        help="Read settings from FILE, not the usual files.",
    ),
    _common("--profile", is_eager=True, metavar="NAME", help="Prefer the settings under [profile.NAME]."),
    _common("-q", "--quiet", is_flag=True, help="Print nothing on success, a report on failure."),
    _common("-v", "--verbose", is_flag=True, help="Show tracebacks and messages of libraries."),
    _common(
        "--color",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=False,
        help="When to color messages; NO_COLOR is honored.",
    ),
    _common(
        "--progress",
        type=click.Choice(["auto", "bar", "plain", "none"]),
        default="auto",
        show_default=False,
        metavar="KIND",
        help="Progress: auto, bar, plain (for logs) or none.",
    ),
)


class Command(click.Command):
    """A command whose function gets a `Session` in place of the common options.

    The function returns the exit code, or None for 0. The help shows the common options at the end.
    """

    context_class = HelpContext

    def __init__(
        self,
        name: str | None,
        *,
        params: list[click.Parameter] | None = None,
        prints_events: bool = False,
        **others: Any,
    ) -> None:
        """Make a command; with `prints_events`, --json prints events, and a summary at the end even after an error."""
        super().__init__(name, params=[*(params or ()), *_COMMON_OPTIONS], **others)
        self._prints_events = prints_events

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the options; an error names the command and, where it is clear, the intended option."""
        typed = list(args)
        if self._prints_events and not ctx.resilient_parsing:
            ctx.meta[_PRINTS_EVENTS] = ctx, typed
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise with_suggestion(error, ctx, typed) from None

    def invoke(self, ctx: click.Context) -> None:
        """Run the command, and exit with its code."""
        assert self.callback is not None  # noqa: S101  # every command has a function
        common = {option.name for option in _COMMON_OPTIONS}
        options = {name: value for name, value in ctx.params.items() if name not in common}
        terminal = Terminal.of(ctx)
        events = Events(terminal, wanted=self._prints_events and options.pop("json"))
        folder = ctx.params["journal"]
        journal = None if folder is None else Journal(expanded(folder).absolute())
        session = ctx.find_root().obj = Session(journal, terminal, events)
        try:
            code = ctx.invoke(self.callback, session, **options)
        finally:
            session.show_warnings()
        ctx.exit(code or 0)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings, in the order in which they were declared."""
        _write(formatter, _option_sections(self, ctx, otherwise=COMMON))


class Group(click.Group):
    """A group whose help has a whole sentence about each command."""

    context_class = HelpContext
    command_class = Command

    def __init__(self, *args: Any, alone: str | None = None, **attributes: Any) -> None:
        """Make a group; `alone` names the command that runs if only options are typed."""
        super().__init__(*args, **attributes)
        self._alone = alone

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words after the group's name."""
        typed = list(args)
        is_own = args[:1] and (args[0] in ctx.help_option_names or not args[0].startswith("-"))
        try:
            return super().parse_args(ctx, args if is_own or self._alone is None else [self._alone, *args])
        except click.UsageError as error:
            raise with_suggestion(error, ctx, typed) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first word names."""
        name = args[0]
        is_option = name.startswith("-") and name != "-"
        if not is_option and not ctx.resilient_parsing and name not in self.list_commands(ctx):
            raise no_such_command(name, ctx)
        return super().resolve_command(ctx, args)

    def command_sections(self, ctx: click.Context) -> Sections:
        """Return each command with its summary, under headings."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        return {"Commands": [(name, command.get_short_help_str(_WHOLE)) for name, command in found if command]}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, and then the options of the group itself."""
        _write(formatter, self.command_sections(ctx) | _option_sections(self, ctx, otherwise=OWN))


def session_of(ctx: click.Context) -> Session:
    """Return the session of the running command; if its options cannot be read, one with their defaults."""
    session: Session | None = ctx.find_root().obj
    if session is not None:
        return session
    terminal = Terminal.of(ctx)
    typed = ctx.meta.get(_PRINTS_EVENTS)
    return Session(None, terminal, Events(terminal, wanted=typed is not None and flag_is_set("json", *typed)))


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
    """Write terms and their texts under headings; all sections share the width of the first column."""
    terms = [term for term, _ in chain.from_iterable(sections.values()) if len(term) <= TERM_CELLS]
    width = max(map(len, terms), default=0)
    for heading, rows in sections.items():
        with formatter.section(heading):
            formatter.write_dl([(term.ljust(width), _unbroken(text)) for term, text in rows], col_max=width)
