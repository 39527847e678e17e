"""The README tells the truth: every command shown there runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import SAMPLES, Terminal

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


def test_there_are_sessions_and_two_commands() -> None:
    """The tour is there, and so are the two commands, which continuous integration takes from here."""
    assert len(SESSIONS) >= 1
    assert len(re.findall(r"^```sh$", README, re.M)) == 2
