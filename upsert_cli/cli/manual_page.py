"""The manual page for `man upsert-cli`, made from the help of all commands; `setup.py` puts it into a wheel."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from upsert_cli import __version__
from upsert_cli.cli.options.option import Option
from upsert_cli.cli.options.settings import commands_below, is_common

_VERBATIM = "\b"  # Click's mark of a paragraph whose lines are kept


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
