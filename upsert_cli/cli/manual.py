"""The manual page, made from the help texts of all commands when a wheel is built (`setup.py`)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from functools import reduce

import click

from upsert_cli import __version__
from upsert_cli.cli.options.help_format import commands_below
from upsert_cli.cli.options.option import Option
from upsert_cli.cli.root import cli

_VERBATIM = "\b"  # click's mark of a paragraph whose lines are kept


def manual_page() -> str:
    """Return the page in the language of man(7)."""
    return "".join(f"{line}\n" for line in _page())


def _page() -> Iterator[str]:
    root = cli.make_context("upsert-cli", [], resilient_parsing=True)
    commands = list(commands_below(root))
    common = reduce(lambda some, more: some & more, (_option_names(ctx.command) for ctx in commands))
    about, *rest = _paragraphs(cli.help or "") + _paragraphs(cli.epilog or "")
    yield f'.TH UPSERT-CLI 1 "" "upsert-cli {__version__}" "User Commands"'
    yield from (".SH NAME", f"upsert\\-cli \\- {_text(about.rstrip('.'))}")
    yield from (".SH SYNOPSIS", "\\fBupsert\\-cli\\fR \\fICOMMAND\\fR [\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]")
    yield ".SH DESCRIPTION"
    yield from _described([about, *rest])
    yield ".SH COMMANDS"
    for ctx in commands:
        yield f'.SS "{_text(_usage(ctx))}"'
        yield from _described(_paragraphs(ctx.command.help or ""))
        yield from _options(ctx, lambda param: not set(param.opts) <= common)
    yield from (".SH COMMON OPTIONS", "Every command takes these.")
    yield from _options(commands[0], lambda param: set(param.opts) <= common)


def _option_names(command: click.Command) -> frozenset[str]:
    return frozenset(name for param in command.params if isinstance(param, click.Option) for name in param.opts)


def _usage(ctx: click.Context) -> str:
    return " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])


def _options(ctx: click.Context, wanted: Callable[[click.Option], bool]) -> Iterator[str]:
    for param in ctx.command.get_params(ctx):
        if isinstance(param, click.Option) and wanted(param) and (record := param.get_help_record(ctx)):
            yield from (".TP", f"\\fB{_text(record[0])}\\fR", _text(record[1]))
            if isinstance(param, Option):
                yield from (".br", _text(f"Environment: {next(param.variables(ctx))}"))


def _paragraphs(text: str) -> list[str]:
    return [part.strip("\n") for part in re.split(r"\n\s*\n", inspect.cleandoc(text)) if part.strip()]


def _described(paragraphs: list[str]) -> Iterator[str]:
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".PP"
        lines = paragraph.splitlines()
        if lines[0].strip() == _VERBATIM:
            yield from (".nf", *(_text(line) for line in lines[1:]), ".fi")
        else:
            yield _text(" ".join(line.strip() for line in lines))


def _text(text: str) -> str:
    """Return text without meaning to roff; hyphens stay hyphens, so that options can be copied."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    plain = re.sub(r"[^\x20-\x7e]", lambda match: f"\\[u{ord(match.group()):04X}]", plain)
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain
