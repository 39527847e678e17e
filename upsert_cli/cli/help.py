"""The command `help`: the pages of the guide and the help of commands; and the page for `man upsert-cli`.

`setup.py` makes that page from the help of all commands and puts it into a wheel.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from upsert_cli import __version__
from upsert_cli.cli.display.session import Session
from upsert_cli.cli.display.terminal import Terminal
from upsert_cli.cli.options.command import Command
from upsert_cli.cli.options.option import Option
from upsert_cli.cli.options.settings import commands_below, is_common, list_commands
from upsert_cli.text import nearest

GUIDE = Path(__file__).parent.parent / "guide"
SCHEMAS = Path(__file__).parent.parent / "schema"
JSON = "json"  # the page about the schemas; a name after it shows a schema
TOPICS = {
    "Load": ("csv", "files", "addresses", "copy", "server", "cron", "ci", "containers"),
    "Keep a collection right": ("mirror", "tasks", "errors", "repair", "rescue", "backup", "troubleshooting"),
    "Texts, models and vectors": ("items", "split", "other-models", "re-embed", "vectors", "filters"),
    "Larger loads": ("speed", "queues", "machines"),
    "Reference": ("configuration", "environment", "json", "metrics"),
}
"""The pages of the guide by group, in the order in which `help` lists them."""

ALL_COMMANDS = "All commands"  # the heading of the variables that every command reads
ENVIRONMENT = "environment"  # the page that ends with a list of all variables
SHOWN_PAGES = 2  # pages suggested for a word that is no topic
MAX_WIDTH = 100  # columns; longer lines of prose are hard to read

CELL_BAR = r"\|"  # a bar inside a table's cell in Markdown
HOW_TO_READ = "`upsert-cli help TOPIC` shows a page, and `upsert-cli help COMMAND` a command's help."

_LINK_TO_PAGE = re.compile(r"\[([^\]]+)\]\(([a-z-]+)\.md\)")
_VERBATIM = "\b"  # Click's mark of a paragraph whose lines are kept


def _offered(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the topics and the commands to a shell."""
    topics = [CompletionItem(topic, help=title_of(topic)) for topic in _all_topics() if topic.startswith(incomplete)]
    root = ctx.find_root()
    return topics + root.command.shell_complete(root, incomplete)


@click.command("help", cls=Command)
@click.argument("topic", nargs=-1, metavar="[TOPIC]", shell_complete=_offered)
def show_help(session: Session, *, topic: tuple[str, ...]) -> None:
    """Show a page of the guide, or the help of a command.

    Lists the topics of the guide if no TOPIC is given. TOPIC may also be a command.

    \b
    upsert-cli help cron
    upsert-cli help categories run
    """
    root = click.get_current_context().find_root()
    if not topic:
        click.echo(list_of_topics())
    elif (found := _command_help(topic, root)) is not None:
        click.echo(found)
    elif len(topic) == 1 and topic[0] in _all_topics():
        _print_page(page(topic[0], root), session.terminal)
    elif len(topic) == 2 and topic[0] == JSON and topic[1] in schema_names():  # noqa: PLR2004  # two words
        click.echo((SCHEMAS / f"{topic[1]}.json").read_text(encoding="utf-8"), nl=False)
    else:
        raise click.UsageError(_unknown(" ".join(topic), root))


def list_of_topics() -> str:
    """Return the topics of the guide by group, with the title of each page."""
    width = max(map(len, _all_topics())) + 2
    groups = [
        "\n".join([f"{group}:", *(f"  {topic:{width}}{title_of(topic)}" for topic in topics)])
        for group, topics in TOPICS.items()
    ]
    return "\n\n".join([*groups, HOW_TO_READ])


def schema_names() -> list[str]:
    """Return the names of the schemas of all JSON output."""
    return sorted(path.stem for path in SCHEMAS.glob("*.json"))


def environment_variables(root: click.Context) -> dict[str, dict[str, str]]:
    """Return each variable with its option, such as `--model NAME`, by command; those of all commands come first."""
    variables: dict[str, dict[str, str]] = {ALL_COMMANDS: {}}
    for ctx in commands_below(root):
        for param in ctx.command.params:
            if isinstance(param, Option) and (record := param.get_help_record(ctx)) is not None:
                heading = ALL_COMMANDS if is_common(param) else ctx.command_path
                variables.setdefault(heading, {})[next(param.variables(ctx))] = record[0]
    return variables


def title_of(topic: str) -> str:
    """Return the title of a page, without reading the rest of it."""
    with (GUIDE / f"{topic}.md").open(encoding="utf-8") as text:
        return text.readline().removeprefix("#").strip()


def page(topic: str, root: click.Context) -> str:
    """Return a page in Markdown."""
    text = (GUIDE / f"{topic}.md").read_text(encoding="utf-8")
    return text + _variables(root) if topic == ENVIRONMENT else text


def _variables(root: click.Context) -> str:
    """Return every variable with its option in Markdown, a section per command."""
    sections = []
    for heading, options in environment_variables(root).items():
        rows = "".join(f"| `{name}` | `{option.replace('|', CELL_BAR)}` |\n" for name, option in options.items())
        sections.append(f"\n### {heading}\n\n| variable | option |\n|---|---|\n{rows}")
    return "".join(sections)


def _print_page(text: str, terminal: Terminal) -> None:
    """Print a page, laid out on a terminal and as Markdown in a pipe."""
    if not sys.stdout.isatty():
        click.echo(text, nl=False)
        return
    from rich.markdown import Markdown

    shown = Markdown(_LINK_TO_PAGE.sub(r"\1 (`upsert-cli help \2`)", text), code_theme="ansi_dark", hyperlinks=False)
    console = terminal.console(stderr=False)
    console.print(shown, width=min(console.width, MAX_WIDTH))


def _command_help(words: tuple[str, ...], root: click.Context) -> str | None:
    """Return the help of a command, or None if the words name no command."""
    command, ctx = root.command, root
    for word in words:
        inner = command.get_command(ctx, word) if isinstance(command, click.Group) else None
        if inner is None:
            return None
        command, ctx = inner, inner.make_context(word, [], parent=ctx, resilient_parsing=True)
    return command.get_help(ctx)


def _all_topics() -> list[str]:
    return [topic for topics in TOPICS.values() for topic in topics]


def _unknown(typed: str, root: click.Context) -> str:
    known = [*_all_topics(), *list_commands(root), *(f"{JSON} {name}" for name in schema_names())]
    meant = nearest(typed, known) or nearest(typed.partition(" ")[0], known)
    if meant is not None:
        advice = f"did you mean `upsert-cli help {meant}`?"
    elif pages := _pages_that_mention(typed):
        named = " and ".join(f"`upsert-cli help {topic}`" for topic in pages)
        advice = f"{named} mention{'s' * (len(pages) == 1)} it"
    else:
        advice = "`upsert-cli help` lists the topics"
    return f"there is no page and no command {typed!r}; {advice}"


def _pages_that_mention(word: str) -> list[str]:
    """Return the pages that mention a word, sorted by how often they do."""
    pattern = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
    found = {
        topic: len(pattern.findall((GUIDE / f"{topic}.md").read_text(encoding="utf-8"))) for topic in _all_topics()
    }
    most = sorted((topic for topic in found if found[topic]), key=found.__getitem__, reverse=True)
    return most[:SHOWN_PAGES]


def manual_page(cli: click.Command) -> str:
    """Return the manual page of a command line in the language of man(7)."""
    return "".join(f"{line}\n" for line in _lines(cli))


def _lines(cli: click.Command) -> Iterator[str]:
    about, *rest = _paragraphs(cli.help or "") + _paragraphs(cli.epilog or "")
    yield f'.TH UPSERT-CLI 1 "" "upsert-cli {__version__}" "User Commands"'
    yield from (".SH NAME", f"upsert\\-cli \\- {_roff(about.rstrip('.'))}")
    yield from (".SH SYNOPSIS", "\\fBupsert\\-cli\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]")
    yield ".SH DESCRIPTION"
    yield from _prose([about, *rest])
    yield ".SH COMMANDS"
    commands = list(commands_below(cli.make_context("upsert-cli", [], resilient_parsing=True)))
    for ctx in commands:
        yield f'.SS "{_roff(_usage(ctx))}"'
        yield from _prose(_paragraphs(ctx.command.help or ""))
        yield from _options(ctx, common=False)
    yield from (".SH COMMON OPTIONS", "Every command takes these.")
    yield from _options(commands[0], common=True)


def _usage(ctx: click.Context) -> str:
    return " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])


def _options(ctx: click.Context, *, common: bool) -> Iterator[str]:
    """Yield the options that every command has, which include Click's own --help, or the others."""
    for param in ctx.command.get_params(ctx):
        is_option = isinstance(param, click.Option)
        is_everywhere = is_common(param) or not isinstance(param, Option)
        if is_option and is_everywhere is common and (record := param.get_help_record(ctx)) is not None:
            yield from (".TP", f"\\fB{_roff(record[0])}\\fR", _roff(record[1]))
            if isinstance(param, Option):
                yield from (".br", _roff(f"Environment: {next(param.variables(ctx))}"))


def _paragraphs(text: str) -> list[str]:
    return [part.strip("\n") for part in re.split(r"\n\s*\n", inspect.cleandoc(text)) if part.strip()]


def _prose(paragraphs: list[str]) -> Iterator[str]:
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".PP"
        lines = paragraph.splitlines()
        if lines[0].strip() == _VERBATIM:
            yield from (".nf", *(_roff(line) for line in lines[1:]), ".fi")
        else:
            yield _roff(" ".join(line.strip() for line in lines))


def _roff(text: str) -> str:
    """Return text that has no meaning in roff; hyphens stay hyphens, so that options can be copied."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    plain = re.sub(r"[^\x20-\x7e]", lambda match: f"\\[u{ord(match.group()):04X}]", plain)
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain
