"""The README tells the truth: every command shown there runs."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.support.terminal import SAMPLES, Terminal
from upsert_cli.cli.root import cli

README = (Path(__file__).parent.parent / "README.md").read_text()
SESSIONS = re.findall(r"```console\n(.*?)```", README, re.S)


@pytest.mark.parametrize("session", SESSIONS, ids=lambda session: session.splitlines()[0])
def test_sessions_run_as_shown(terminal: Terminal, session: str) -> None:
    """Each session of the tour runs from its first to its last command, with the exit codes that it shows."""
    shutil.copytree(SAMPLES, terminal.folder / "sample_data")
    commands = re.findall(r"^\$ (.*)$", session, re.M)
    assert commands
    for command in commands:
        line, _, comment = command.partition("  # exits with ")
        terminal.type(line, expect=int(comment or 0))


def _commands(group: click.Group, ctx: click.Context) -> Iterator[click.Command]:
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from _commands(command, ctx)


def _examples() -> list[str]:
    """Return the lines of the README that are no session, and those of the help texts."""
    helps = [command.help or "" for command in _commands(cli, click.Context(cli))]
    lines = re.findall(r"^ *(upsert-cli .*)$", "\n".join([README, *helps]), re.M)
    return sorted({re.split(r"  #| [<|] ", line)[0] for line in lines})


@pytest.mark.parametrize("line", _examples())
def test_examples_can_be_typed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an example names files and servers of the reader's own, its command and options are there."""
    monkeypatch.chdir(tmp_path)
    command: click.Command = cli
    ctx, rest = None, shlex.split(line)[1:]
    while isinstance(command, click.Group):
        ctx = command.make_context("upsert-cli", [], parent=ctx, resilient_parsing=True)
        _, found, rest = command.resolve_command(ctx, rest)
        assert found is not None
        command = found
    command.make_context(command.name, rest, parent=ctx)


def test_there_are_sessions_and_two_commands() -> None:
    """The tour is there, and so are the two commands, which continuous integration takes from here."""
    assert len(SESSIONS) >= 1
    assert len(re.findall(r"^```sh$", README, re.M)) == 2
